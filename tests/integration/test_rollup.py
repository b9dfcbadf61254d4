"""Rollups and their tail are exact in every snapshot: whatever is open, late or rolled up at that moment."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from gateway.settle.rollup import roll_up, roll_up_once
from tests.support.postgres import connected
from tests.support.rollups import EXACT, Owner, differing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Connection, Pool

NOW = dt.datetime.now(dt.UTC)
AGES = (0, 0, 0, 5, 70, 60 * 26, 60 * 24 * 365)
"""Minutes before now: this hour, the one before it, yesterday, a year ago."""

STEPS = 120
WRITERS = 5
MAKE = "SELECT penstock_make_partitions($1, 1)"


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database that has a place for rows of the times in AGES."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        for minutes in set(AGES):
            await opened.execute(MAKE, (NOW - dt.timedelta(minutes=minutes)).date())
        yield opened


class Writer:
    """A session that writes in transactions of its own pace."""

    def __init__(self, connection: Connection, dice: random.Random, owners: list[Owner], events: list[Event]) -> None:
        self._connection = connection
        self._dice = dice
        self._owners = owners
        self._events = events
        self._uncommitted: list[Event] | None = None

    async def step(self) -> None:
        """Begin, write, commit or take back."""
        if self._uncommitted is None:
            await self._connection.execute("BEGIN")
            self._uncommitted = []
        await self._write(self._uncommitted)
        if self._dice.random() < 0.4:
            await self.end(keep=self._dice.random() < 0.8)

    async def end(self, *, keep: bool) -> None:
        """End the transaction, if there is one."""
        if self._uncommitted is None:
            return
        await self._connection.execute("COMMIT" if keep else "ROLLBACK")
        if keep:
            self._events += self._uncommitted
        self._uncommitted = None

    async def _write(self, written: list[Event]) -> None:
        dice = self._dice
        if self._events and dice.random() < 0.3:
            owner, event_id, at, model = dice.choice(self._events)
            await owner.adjustment(self._connection, event_id, at, dice.randint(-9, 9), model=model, tokens=-1)
            return
        owner = dice.choice(self._owners)
        at = NOW - dt.timedelta(minutes=dice.choice(AGES), seconds=dice.randint(0, 9))
        model, engine = dice.choice(("sim", "big")), dice.choice(("e1", None))
        cost, coverage = dice.randint(0, 10**15), dice.choice(("exact", "estimated"))
        session = dice.choice((None, "morning", "evening"))
        event_id = await owner.event(
            self._connection, at, model=model, engine=engine, cost=cost, coverage=coverage, session=session
        )
        written.append((owner, event_id, at, model))


Event = tuple[Owner, UUID, dt.datetime, str]


@pytest.mark.parametrize("seed", [1, 2])
async def test_rollup_and_tail_are_exact_at_every_moment(pool: Pool, postgres_dsn: str, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a plan that can be had again
    owners = [Owner(), Owner(user_id=UUID(int=7))]
    owners.append(Owner(organization_id=owners[0].organization_id))
    events: list[Event] = []
    connections = [await asyncpg.connect(postgres_dsn) for _ in range(WRITERS)]
    try:
        writers = [Writer(connection, dice, owners, events) for connection in connections]
        async with pool.acquire() as observer:
            for _ in range(STEPS):
                await dice.choice(writers).step()
                if dice.random() < 0.3:
                    await roll_up_once(observer, rows_max=dice.choice((1, 3, 100)))
                assert await differing(observer) == EXACT
            for writer in writers:
                await writer.end(keep=True)
            await roll_up(pool)
            assert await differing(observer) == EXACT
            assert await observer.fetchval(TAIL_ROWS) == 0
    finally:
        for connection in connections:
            connection.terminate()
    assert events


TAIL_ROWS = """
SELECT count(*) FROM penstock_usage_parts(
    (SELECT watermark FROM rollup_state), '18446744073709551615'::xid8, '-infinity', 'infinity')
"""


async def test_passes_at_the_same_time_count_nothing_twice(pool: Pool) -> None:
    owner = Owner()
    async with pool.acquire() as connection:
        for _ in range(40):
            await owner.event(connection, NOW)
    assert sum(await asyncio.gather(*(roll_up(pool, rows_max=3) for _ in range(3)))) == 40
    async with pool.acquire() as connection:
        assert await differing(connection) == EXACT
        assert await connection.fetchval("SELECT sum(requests) FROM usage_day") == 40


async def test_a_pass_that_is_cut_off_has_done_nothing(pool: Pool, postgres_dsn: str) -> None:
    owner = Owner()
    async with connected(postgres_dsn) as connection, pool.acquire() as other:
        await owner.event(other, NOW)
        before = await other.fetchval("SELECT watermark::text FROM rollup_state")
        await connection.execute("BEGIN")
        assert await connection.fetchval("SELECT rolled_up FROM penstock_roll_up(10)") == 1
        await other.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        assert await differing(other) == EXACT
        assert await other.fetchval("SELECT watermark::text FROM rollup_state") == before
        assert await roll_up(pool) == 1
        assert await differing(other) == EXACT


async def test_work_is_done_in_bounded_pieces(pool: Pool) -> None:
    owner = Owner()
    async with pool.acquire() as connection:
        for _ in range(7):
            await owner.event(connection, NOW)
        passes = [await roll_up_once(connection, rows_max=3) for _ in range(3)]
        assert [(each.rolled_up, each.behind) for each in passes] == [(3, True), (3, True), (1, False)]
        async with connection.transaction():  # what one transaction wrote is below the watermark or not, as a whole
            for _ in range(5):
                await owner.event(connection, NOW)
        assert (await roll_up_once(connection, rows_max=2)).rolled_up == 5


async def test_a_transaction_that_stays_open_keeps_nothing_from_being_counted(pool: Pool, postgres_dsn: str) -> None:
    """What commits after it waits in the tail, which sums read, too."""
    owner = Owner()
    async with connected(postgres_dsn) as late, pool.acquire() as connection:
        await late.execute("BEGIN")
        await owner.event(late, NOW)
        await owner.event(connection, NOW)
        assert await roll_up(pool) == 0
        assert await differing(connection) == EXACT
        await late.execute("COMMIT")
        assert await differing(connection) == EXACT
        assert await roll_up(pool) == 2


async def test_a_database_restored_into_a_younger_server_is_taken_over(pool: Pool) -> None:
    """Its transaction ids mean nothing there: what was in the rollups stays there, what was not is rolled up once."""
    owner = Owner()
    async with pool.acquire() as connection:
        for _ in range(5):
            await owner.event(connection, NOW)
        await roll_up(pool)
        await owner.event(connection, NOW, cost=100)
        # As from a server that has counted a billion transactions more.
        await connection.execute(
            "UPDATE usage_event SET ingest_xid = (ingest_xid::text::bigint + 1000000000)::text::xid8"
        )
        await connection.execute(
            "UPDATE rollup_state SET watermark = (watermark::text::bigint + 1000000000)::text::xid8"
        )
        assert await differing(connection) == EXACT
        event_id = await owner.event(connection, NOW, cost=1000)
        await owner.adjustment(connection, event_id, NOW, -1)
        await roll_up(pool, rows_max=2)
        assert await differing(connection) == EXACT
        (sums,) = await connection.fetch("SELECT sum(requests), sum(cost_pico_usd) FROM usage_day")
        assert tuple(sums) == (7, 1134)
        watermark = int(await connection.fetchval("SELECT watermark::text FROM rollup_state"))
        assert watermark < 10**9
        assert await roll_up(pool) == 0


async def test_an_adjustment_is_the_event_s_engine_s(pool: Pool) -> None:
    owner = Owner()
    async with pool.acquire() as connection:
        event_id = await owner.event(connection, NOW, engine="e7", cost=10)
        await owner.adjustment(connection, event_id, NOW, -4)
        await roll_up(pool)
        rows = await connection.fetch("SELECT engine, cost_pico_usd FROM usage_hour")
        sessions = await connection.fetch("SELECT session, requests, cost_pico_usd FROM usage_session")
        (totals,) = await connection.fetch("SELECT charged_cost_pico_usd, credited_cost_pico_usd FROM usage_total")
    assert [tuple(row) for row in rows] == [("e7", 6)]
    assert [tuple(row) for row in sessions] == [("session", 1, 6)]
    assert tuple(totals) == (10, 4)


async def test_a_session_s_hour_tells_when_it_began_and_ended(pool: Pool) -> None:
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    minutes = [hour + dt.timedelta(minutes=minute) for minute in (7, 3, 40)]
    owner = Owner()
    async with pool.acquire() as connection:
        for at in minutes:
            await owner.event(connection, at)
            await owner.event(connection, at, session=None)
            await roll_up(pool)
        rows = await connection.fetch(
            "SELECT session, requests, opened_first, opened_last FROM usage_session ORDER BY session"
        )
    assert [tuple(row) for row in rows] == [("session", 3, minutes[1], minutes[2]), (None, 3, None, None)]
