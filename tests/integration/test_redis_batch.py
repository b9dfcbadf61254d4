"""Scripts on a real Redis, many at once: each call gets its own answer, and what Redis forgets is told to it again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import hiredis
import pytest
import redis

from gateway.admit import redis_batch
from gateway.admit.redis_batch import CALLS_PER_FLUSH_MAX, FLUSHES_MAX, RedisBatch
from gateway.admit.script_call import ScriptCall, ScriptFailed
from gateway.errors import LimiterUnavailable
from gateway.storage.redis import open_redis
from tests.support.frozen import frozen
from tests.support.scripts import ECHO, script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.dev.children import RunningServer

PATIENCE_S = 10.0
SHORT_S = 0.05


FAILS = script("return redis.error_reply('no')")


class Owner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def away(self, reason: str) -> None:
        """Take note."""
        self.heard.append(reason)

    def script_failed(self, error: ScriptFailed) -> None:
        """Take note."""
        self.heard.append(str(error))

    def elsewhere(self, call: ScriptCall, text: str) -> None:
        """Take note."""
        self.heard.append(text)
        call.fail(LimiterUnavailable("elsewhere"))


@pytest.fixture
async def batch(redis_url: str) -> AsyncIterator[RedisBatch]:
    """A batch with patience."""
    client = open_redis(redis_url, PATIENCE_S)
    batch = RedisBatch(client, PATIENCE_S, Owner())
    yield batch
    await batch.close()
    await client.aclose()


@pytest.fixture
def other(redis_url: str) -> redis.Redis:
    """A connection of somebody else's."""
    return redis.Redis.from_url(redis_url)


async def test_each_call_gets_its_own_answer(batch: RedisBatch) -> None:
    answers = await asyncio.gather(*(batch.call(ECHO, (0, number)) for number in range(5_000)))
    assert answers == [b"%d" % number for number in range(5_000)]


async def test_calls_of_one_tick_share_a_flush(batch: RedisBatch) -> None:
    await batch.call(ECHO, (0, 0))
    calls = [batch.call(ECHO, (0, number)) for number in range(CALLS_PER_FLUSH_MAX)]
    await asyncio.sleep(0)
    assert [len(channel.calls) for channel in batch._channels] == [CALLS_PER_FLUSH_MAX]
    more = [batch.call(ECHO, (0, number)) for number in range(CALLS_PER_FLUSH_MAX * FLUSHES_MAX * 3)]
    await asyncio.gather(*calls, *more)
    assert len(batch._channels) <= FLUSHES_MAX


async def test_a_script_that_redis_forgot_is_loaded_again(batch: RedisBatch, other: redis.Redis) -> None:
    assert await batch.call(ECHO, (0, 1)) == b"1"
    with other:
        other.script_flush()
        assert await asyncio.gather(*(batch.call(ECHO, (0, number)) for number in range(3))) == [b"0", b"1", b"2"]


async def test_a_refusal_is_of_its_own_call(batch: RedisBatch) -> None:
    first, refused, last = batch.call(ECHO, (0, 1)), batch.call(FAILS, (0,)), batch.call(ECHO, (0, 2))
    assert [await first, await last] == [b"1", b"2"]
    with pytest.raises(ScriptFailed, match="no"):
        await refused


async def test_connections_that_redis_closed_meanwhile_cost_no_answer(batch: RedisBatch, other: redis.Redis) -> None:
    """Redis, or a proxy before it, may close what is idle: that does not mean that it is away."""
    await asyncio.gather(*(batch.call(ECHO, (0, number)) for number in range(CALLS_PER_FLUSH_MAX * FLUSHES_MAX)))
    with other:
        other.client_kill_filter(_type="normal", skipme=True)
    for number in range(2 * FLUSHES_MAX):
        assert await batch.call(ECHO, (0, number)) == b"%d" % number


async def test_a_redis_that_was_restarted_empty_costs_no_answer(batch: RedisBatch, other: redis.Redis) -> None:
    """The connections are gone and so are the scripts."""
    assert await batch.call(ECHO, (0, 0)) == b"0"
    with other:
        other.script_flush()
        other.client_kill_filter(_type="normal", skipme=True)
    assert await asyncio.gather(*(batch.call(ECHO, (0, number)) for number in range(3))) == [b"0", b"1", b"2"]


async def test_a_further_connection_that_cannot_be_made_costs_no_answer(own_redis: RunningServer) -> None:
    """Redis has as many clients as it takes, and one of them is this one."""
    client = open_redis(own_redis.address, PATIENCE_S)
    batch = RedisBatch(client, PATIENCE_S, Owner())
    await batch.call(ECHO, (0, 0))
    with redis.Redis.from_url(own_redis.address) as other:
        other.config_set("maxclients", other.info("clients")["connected_clients"])
        numbers = range(CALLS_PER_FLUSH_MAX * FLUSHES_MAX * 3)
        answers = await asyncio.gather(*(batch.call(ECHO, (0, number)) for number in numbers))
        assert answers == [b"%d" % number for number in numbers]
        assert len(batch._channels) == 1
        await batch.close()
    await client.aclose()


async def test_no_call_is_sent_for_ever() -> None:
    """Something that greets like Redis and hangs up on every script is away after a second try."""
    scripts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal scripts
        commands = hiredis.Reader()
        while data := await reader.read(65_536):
            commands.feed(data)
            while command := commands.gets():
                if command[0] == b"EVALSHA":
                    scripts += 1
                    writer.close()
                    return
                writer.write(b"+OK\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = open_redis(f"redis://127.0.0.1:{port}?protocol=2", PATIENCE_S)
        batch = RedisBatch(client, PATIENCE_S, Owner())
        with pytest.raises(LimiterUnavailable, match="broke the connection off"):
            await batch.call(ECHO, (0,))
        await batch.close()
        await client.aclose()
    assert scripts == 2


async def test_a_call_that_is_given_up_leaves_the_others_their_answers(batch: RedisBatch) -> None:
    calls = [batch.call(ECHO, (0, number)) for number in range(3)]
    calls[1].cancel()
    assert [await calls[0], await calls[2]] == [b"0", b"2"]


async def test_the_queue_is_bounded(batch: RedisBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_batch, "CALLS_WAITING_MAX", 2)
    calls = [batch.call(ECHO, (0, number)) for number in range(3)]
    with pytest.raises(LimiterUnavailable, match="too many"):
        await calls[2]
    assert await asyncio.gather(*calls[:2]) == [b"0", b"1"]


async def test_nobody_waits_a_deadline_after_another(own_redis: RunningServer) -> None:
    """All that waits behind a late flush fails with it, and no late answer reaches a later call."""
    client = open_redis(own_redis.address, SHORT_S)
    batch = RedisBatch(client, SHORT_S, Owner())
    await batch.call(ECHO, (0, "before"))
    with frozen(own_redis):
        calls = [batch.call(ECHO, (0, number)) for number in range(CALLS_PER_FLUSH_MAX * (FLUSHES_MAX + 3))]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, LimiterUnavailable) for outcome in outcomes)
        assert not batch._waiting
    answers: list[object] = []

    async def answered() -> bool:
        answers[:] = await asyncio.gather(batch.call(ECHO, (0, "after")), return_exceptions=True)
        return answers == [b"after"]

    while not await answered():
        assert isinstance(answers[0], LimiterUnavailable), "never another call's answer"
    await batch.close()
    await client.aclose()


async def test_a_redis_that_is_not_there_fails_at_once(own_redis: RunningServer) -> None:
    client = open_redis(own_redis.address, PATIENCE_S)
    batch = RedisBatch(client, PATIENCE_S, Owner())
    await batch.call(ECHO, (0, 1))
    own_redis.child.stop()
    with pytest.raises(LimiterUnavailable):
        await batch.call(ECHO, (0, 2))
    await batch.close()
    await client.aclose()


async def test_closing_waits_for_what_is_under_way(redis_url: str) -> None:
    client = open_redis(redis_url, PATIENCE_S)
    batch = RedisBatch(client, PATIENCE_S, Owner())
    call = batch.call(ECHO, (0, 1))
    await batch.close()
    assert call.result() == b"1"
    assert not batch._channels
    await client.aclose()
