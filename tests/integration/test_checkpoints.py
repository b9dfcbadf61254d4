"""Checkpoints on a real Postgres: what they say, when they are written, and what they leave out."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from gateway.domain.usage import TokenUsage
from gateway.settle import checkpoints as checkpoints_module
from gateway.settle.checkpoints import Checkpoints, InFlight, Totals, UsedSoFar
from gateway.settle.ledger import Ledger
from gateway.storage.postgres import open_pool
from gateway.units import PicoUsd, new_event_id
from tests.support.postgres import connected
from tests.support.records import close_record, open_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 10.0
USED = UsedSoFar(True, 100, 40, 11, 1, "served", "http://engine", "ses_1", 2, 15)


class Request:
    """In flight, and as far as it says."""

    def __init__(self, used: UsedSoFar = USED) -> None:
        self.used = used

    def used_so_far(self, _now_s: float) -> UsedSoFar:
        """Return it."""
        return self.used


class Desk:
    """A replica's checkpoints with all that they read; `rows` is what they wrote."""

    def __init__(self, dsn: str, every_s: float = 60.0) -> None:
        self.dsn = dsn
        self.boot_id = uuid4()
        self.live: dict[UUID, InFlight] = {}
        self.ledger = Ledger(events_max=10)
        self.totals = Totals()
        self.every_s = every_s

    async def __aenter__(self) -> Self:
        self.pool = await open_pool(self.dsn, pooled=False, wait_s=PATIENCE_S)
        self.checkpoints = Checkpoints(
            self.pool, self.boot_id, self.live, self.ledger, self.totals, every_s=self.every_s
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.pool.terminate()

    async def rows(self) -> list[dict[str, Any]]:
        """Return the checkpoint, if there is one."""
        async with connected(self.dsn) as connection:
            found = await connection.fetch("SELECT * FROM replica_checkpoint WHERE boot_id = $1", self.boot_id)
        return [dict(row) for row in found]

    async def said(self) -> dict[str, UsedSoFar]:
        """Return what the checkpoint says of requests, by event id."""
        (row,) = await self.rows()
        return msgspec.json.decode(row["live"], type=dict[str, UsedSoFar])


@pytest.fixture
async def desk(postgres_dsn: str) -> AsyncIterator[Desk]:
    """A replica's checkpoints."""
    async with Desk(postgres_dsn) as desk:
        yield desk


async def test_they_say_what_is_in_flight_and_what_was_settled(desk: Desk) -> None:
    event_id, request = new_event_id(), Request()
    desk.live[event_id] = request
    desk.totals.opened += 2
    desk.totals.add(TokenUsage(7, 5, 3, 1), PicoUsd(10**30))
    await desk.checkpoints.take()
    assert await desk.said() == {str(event_id): USED}
    (row,) = await desk.rows()
    assert json.loads(row["counters"]) == {
        "opened": 2, "closed": 1, "prompt": 7, "cached": 5, "completion": 3, "reasoning": 1, "cost_pico_usd": 10**30,
    }  # fmt: skip
    request.used = msgspec.structs.replace(USED, completion=12)
    await desk.checkpoints.take()
    assert (await desk.said())[str(event_id)].completion == 12
    assert (await desk.rows())[0]["taken_at"] > row["taken_at"]


async def test_where_nothing_has_happened_nothing_is_written(desk: Desk) -> None:
    await desk.checkpoints.take()
    assert await desk.rows() == []
    desk.totals.opened += 1
    await desk.checkpoints.take()
    before = await desk.rows()
    assert before
    await desk.checkpoints.take()
    assert await desk.rows() == before


async def test_an_end_that_is_not_written_yet_is_in_flight_for_them(desk: Desk) -> None:
    """It would be lost with the replica just the same."""
    entry = desk.ledger.open(open_record())
    close = close_record(entry.opened)
    desk.ledger.close(entry, close)
    await desk.checkpoints.take()
    used = (await desk.said())[str(close.event_id)]
    for name in ("served_model", "engine", "session", "attempts", "ttft_ms"):
        assert getattr(used, name) == getattr(close, name)
    tokens = (used.prompt, used.cached, used.completion, used.reasoning)
    assert tokens == (close.prompt_tokens, close.cached_tokens, close.completion_tokens, close.reasoning_tokens)
    desk.ledger.written(desk.ledger.group())
    await desk.checkpoints.take()
    assert await desk.said() == {}


async def test_they_are_bounded_and_let_others_have_their_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints_module, "LIVE_MAX", 7)
    monkeypatch.setattr(checkpoints_module, "_BETWEEN_TURNS", 2)
    ids = [new_event_id() for _ in range(9)]
    desk.live.update((event_id, Request()) for event_id in ids)
    asyncio.get_running_loop().call_soon(desk.live.clear)  # all end while they are being read
    await desk.checkpoints.take()
    assert set(await desk.said()) == {str(event_id) for event_id in ids[:7]}


async def test_when_one_fails_the_next_one_tells(postgres_dsn: str) -> None:
    async with Desk(postgres_dsn, every_s=0.01) as desk:
        running = asyncio.ensure_future(desk.checkpoints.run())
        async with connected(postgres_dsn) as connection:
            await connection.execute("ALTER TABLE replica_checkpoint RENAME TO away")
            desk.live[new_event_id()] = Request()
            with pytest.raises(asyncpg.UndefinedTableError):
                await desk.checkpoints.take()
            await connection.execute("ALTER TABLE away RENAME TO replica_checkpoint")
        assert not running.done()
        async with asyncio.timeout(PATIENCE_S):
            while not await desk.rows():
                pass
        desk.live.clear()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await desk.said() == {}, "the last one is taken at the end"
