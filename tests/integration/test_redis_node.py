"""The breaker before one Redis: what waited is sent without a rush, and a Redis that keeps failing is left in peace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis
import structlog

from gateway.admit import redis_node
from gateway.admit.redis_batch import CALLS_PER_FLUSH_MAX, RedisBatch
from gateway.errors import LimiterUnavailable
from tests.support.frozen import frozen
from tests.support.scripts import COUNT, running_scripts, script
from tests.support.waiting import near, wait_until

if TYPE_CHECKING:
    from gateway.admit.script import Script
    from gateway.dev.children import RunningServer
    from gateway.storage.redis_link import Command

PATIENCE_S = 5.0
SHORT_S = 0.05
KEY = "pst:{organization}:x"
REFUSED = script("return redis.error_reply('OOM as if')")


async def test_what_waited_is_sent_in_flushes_with_pauses_between(
    own_redis: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many replicas send at the same time what they could not, and requests do not wait behind it."""
    under_way: list[int] = []
    call = RedisBatch.call

    def watched(batch: RedisBatch, asked: Script, arguments: Command) -> asyncio.Future[Any]:
        future = call(batch, asked, arguments)
        under_way.append(len(batch._waiting) + sum(len(channel.calls) for channel in batch._channels))
        return future

    async with running_scripts(own_redis.address, SHORT_S) as scripts:
        (node,) = scripts.nodes
        await scripts.call(COUNT, (1, KEY, 0))
        with frozen(own_redis):
            for _ in range(10 * CALLS_PER_FLUSH_MAX):
                scripts.send_soon(COUNT, (1, KEY, 1), 60.0)
            await wait_until(lambda: len(node._unsent) == 10 * CALLS_PER_FLUSH_MAX, "all of them wait")
            monkeypatch.setattr(RedisBatch, "call", watched)
        with redis.Redis.from_url(own_redis.address) as client:
            # Those that were under way when Redis froze may have been counted, and are sent again.
            wanted = 10 * CALLS_PER_FLUSH_MAX
            await wait_until(lambda: int(client.get(KEY) or 0) >= wanted and not node._unsent, "all is sent")
        assert max(under_way) <= CALLS_PER_FLUSH_MAX + 1, "a flush of them, and a probe"


async def test_probes_of_many_replicas_are_not_at_the_same_moment() -> None:
    pauses = {redis_node._jittered(redis_node.PROBE_PAUSE_S) for _ in range(100)}
    assert len(pauses) > 90
    assert redis_node.PROBE_PAUSE_S / 2 <= min(pauses) < max(pauses) <= redis_node.PROBE_PAUSE_S * 1.5


async def test_a_redis_that_answers_probes_and_nothing_else_is_probed_less_and_less(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every quarter of a second requests would find it away, and the log would say so twice."""
    pauses: list[float] = []

    def at_once(pause_s: float) -> float:
        pauses.append(pause_s)
        return 0.0

    monkeypatch.setattr(redis_node, "_jittered", at_once)
    async with running_scripts(redis_url, PATIENCE_S) as scripts:

        async def refused() -> None:
            await near(lambda: scripts.available, "Redis is tried again")
            await asyncio.gather(scripts.call(REFUSED, (1, KEY)), return_exceptions=True)
            assert not scripts.available

        for _ in range(redis_node.STEADY_TURNS):
            await scripts.call(COUNT, (1, KEY, 0))
        for _ in range(10):
            await refused()
        assert pauses[:3] == [redis_node.PROBE_PAUSE_S * factor for factor in (1, 2, 4)]
        assert pauses[-1] == redis_node.PROBE_PAUSE_S_MAX
        await near(lambda: scripts.available, "Redis is tried again")
        for _ in range(redis_node.STEADY_TURNS):
            await scripts.call(COUNT, (1, KEY, 0))
        await refused()
        assert pauses[-1] in {redis_node.PROBE_PAUSE_S, redis_node.PROBE_PAUSE_S_MAX}
        await near(lambda: scripts.available, "Redis is tried again")
        assert pauses[-1] == redis_node.PROBE_PAUSE_S, "steady again"


async def test_connections_to_a_primary_that_was_are_not_kept(own_redis: RunningServer) -> None:
    """Its name may lead to another server by now."""
    with structlog.testing.capture_logs() as logs, redis.Redis.from_url(own_redis.address) as client:
        async with running_scripts(own_redis.address, PATIENCE_S) as scripts:
            (node,) = scripts.nodes
            await scripts.call(COUNT, (1, KEY, 0))
            kept = set(node._batch._channels)
            client.replicaof("127.0.0.1", 1)
            with pytest.raises(LimiterUnavailable):
                await scripts.call(COUNT, (1, KEY, 1))
            await near(lambda: not kept & node._batch._channels, "they are ended")
            client.replicaof("NO", "ONE")
            await wait_until(lambda: scripts.available, "it is a primary again")
            assert await scripts.call(COUNT, (1, KEY, 1)) == 1
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"]
    assert logs[0]["reason"].startswith("it refuses: READONLY You can't write")
