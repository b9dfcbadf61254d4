"""Retention: what may be dropped is, what may not stays, and no sum changes, whatever comes late."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.settle.retention import Retention, retire
from gateway.settle.rollup import roll_up
from tests.support.postgres import connected
from tests.support.rollups import Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
NOON = NOW.replace(hour=12, minute=0, second=0, microsecond=0)
OLD, YOUNG = NOON - 10 * DAY, NOON - 2 * DAY
KEEP = Retention(opens_days=2, events_days=3, hours_days=3)
OWNER = Owner()
PARTITIONS = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relispartition AND relname LIKE $1"
DAYS = "SELECT day, sum(requests), sum(cost_pico_usd) FROM usage_day GROUP BY day ORDER BY day"


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database with places for an old day and a young one."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        for at in (OLD, YOUNG):
            await opened.execute("SELECT penstock_make_partitions($1, 1)", at.date())
        yield opened


async def left(pool: Pool, at: dt.datetime) -> int:
    """How many of the day's three partitions are there."""
    count: int = await pool.fetchval(PARTITIONS, f"usage_%_{at:%Y%m%d}")
    return count


async def test_what_has_served_its_time_goes_and_the_days_stay(pool: Pool) -> None:
    async with pool.acquire() as connection:
        for at in (OLD, YOUNG):
            event_id = await OWNER.opening(connection, at)
            await OWNER.event(connection, at, event_id=event_id, cost=10)
            await OWNER.adjustment(connection, event_id, at, -3)
    await roll_up(pool)
    days = await pool.fetch(DAYS)
    assert [tuple(row) for row in days] == [(OLD.date(), 1, 7), (YOUNG.date(), 1, 7)]
    assert await retire(pool, KEEP) == 2
    assert (await left(pool, OLD), await left(pool, YOUNG)) == (0, 3)
    assert await pool.fetch(DAYS) == days
    assert await pool.fetchval("SELECT min(hour) FROM usage_hour") == YOUNG
    assert await pool.fetchval("SELECT min(hour) FROM usage_session") == YOUNG
    (state,) = await pool.fetch("SELECT retired_before, hours_retired_before FROM rollup_state")
    assert tuple(state) == ((OLD + DAY).date(), (NOON - 3 * DAY).date())
    assert await retire(pool, KEEP) == 0


async def test_nothing_goes_unless_it_was_asked_for(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await OWNER.event(connection, OLD)
    await roll_up(pool)
    assert await retire(pool, Retention(opens_days=2)) == 1  # the empty partition of OPENs
    assert await left(pool, OLD) == 2
    assert await pool.fetchval("SELECT count(*) FROM usage_hour") == 1


async def test_an_opening_that_is_not_closed_keeps_its_day(pool: Pool) -> None:
    async with pool.acquire() as connection:
        event_id = await OWNER.opening(connection, OLD)
        await OWNER.event(connection, OLD)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 0
        assert await left(pool, OLD) == 3
        await OWNER.event(connection, OLD, event_id=event_id)
    await roll_up(pool)
    assert await retire(pool, KEEP) == 2


async def test_an_event_that_is_not_rolled_up_keeps_its_day(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await OWNER.event(connection, OLD)
    assert await retire(pool, KEEP) == 1
    assert await left(pool, OLD) == 2
    await roll_up(pool)
    assert await retire(pool, KEEP) == 1


async def test_traffic_does_not_wait_for_a_table_in_use(pool: Pool, postgres_dsn: str) -> None:
    """A long report keeps the partition; the next run gets it."""
    async with connected(postgres_dsn) as report:
        await report.execute("BEGIN")
        await report.execute("SELECT count(*) FROM usage_event")
        async with pool.acquire() as connection:
            await OWNER.event(connection, OLD)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 1
        assert await left(pool, OLD) == 2
        await report.execute("COMMIT")
    assert await retire(pool, KEEP) == 1


async def test_what_comes_for_a_retired_day_is_added_and_retired_in_turn(pool: Pool) -> None:
    async with pool.acquire() as connection:
        event_id = await OWNER.event(connection, OLD, cost=10)
        await roll_up(pool)
        await retire(pool, KEEP)
        await connection.execute("SELECT penstock_make_partitions($1, 1)", OLD.date())  # as the writer does
        await OWNER.event(connection, OLD, cost=100)
        await OWNER.adjustment(connection, event_id, OLD, -1)
    await roll_up(pool)
    days = await pool.fetch(DAYS)
    assert [tuple(row) for row in days] == [(OLD.date(), 2, 109)]
    assert await retire(pool, KEEP) == 2
    assert await left(pool, OLD) == 0
    assert await pool.fetch(DAYS) == days


async def test_what_was_closed_for_a_replica_is_kept_for_its_own_late_word(pool: Pool) -> None:
    """Dropped, the replica's own CLOSE would find nothing to correct and be billed beside the estimate."""
    async with pool.acquire() as connection:
        reaped = await OWNER.event(connection, OLD, cost=10, reaped=True)
        told = await OWNER.event(connection, OLD, cost=10, reaped=True)
        await OWNER.adjustment(connection, told, OLD, -4, late_close=True)
        await OWNER.event(connection, OLD, cost=10)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 2
        assert await connection.fetchval("SELECT array_agg(event_id) FROM usage_event") == [reaped]
        await retire(pool, KEEP)
        assert await connection.fetchval("SELECT count(*) FROM usage_event") == 1
        assert await roll_up(pool) == 0, "what is kept was counted before"
        await OWNER.adjustment(connection, reaped, OLD, -4, late_close=True)
    await roll_up(pool)
    assert [tuple(row) for row in await pool.fetch(DAYS)] == [(OLD.date(), 3, 22)]
    await retire(pool, KEEP)
    assert await pool.fetchval("SELECT count(*) FROM usage_event") == 0


@pytest.mark.parametrize("kind", ["usage_open", "usage_event"])
async def test_nothing_young_is_dropped_whatever_is_asked(pool: Pool, kind: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="before it is 2 days old"):
        await pool.execute("SELECT penstock_retire_partition($1, $2)", kind, YOUNG.date())
    with pytest.raises(asyncpg.RaiseError, match="before it is 2 days old"):
        await pool.execute("SELECT penstock_retire_hours($1, 1)", (NOW - DAY).date())


async def test_no_other_table_is_dropped(pool: Pool) -> None:
    with pytest.raises(asyncpg.RaiseError, match="usage_open or usage_event"):
        await pool.execute("SELECT penstock_retire_partition('usage_day', $1)", OLD.date())
