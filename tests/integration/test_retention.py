"""Retention: what may be dropped is, what may not stays, and no sum changes, whatever comes late."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import pytest

from gateway.settle.retention import Retention, retire
from gateway.settle.rollup import roll_up
from tests.support.postgres import connected
from tests.support.rollups import Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

DAY = dt.timedelta(days=1)
KEEP = Retention(opens_days=2, events_days=3, hours_days=3)
OWNER = Owner()
PARTITIONS = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relispartition AND relname LIKE $1"
DAYS = "SELECT day, sum(requests), sum(cost_pico_usd) FROM usage_day GROUP BY day ORDER BY day"


class Days(NamedTuple):
    """Noon of a day that is old and of one that is young, counted from the day on which a test begins."""

    old: dt.datetime
    young: dt.datetime
    today: dt.datetime


@pytest.fixture
def days() -> Days:
    """Return the days of a test."""
    noon = dt.datetime.now(dt.UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return Days(noon - 10 * DAY, noon - 2 * DAY, noon)


@pytest.fixture
async def pool(postgres_dsn: str, days: Days) -> AsyncIterator[Pool]:
    """A pool on a fresh database with places for an old day and a young one."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        for at in (days.old, days.young):
            await opened.execute("SELECT penstock_make_partitions($1, 1)", at.date())
        yield opened


async def left(pool: Pool, at: dt.datetime) -> int:
    """How many of the day's three partitions are there."""
    count: int = await pool.fetchval(PARTITIONS, f"usage_%_{at:%Y%m%d}")
    return count


async def test_what_has_served_its_time_goes_and_the_days_stay(pool: Pool, days: Days) -> None:
    async with pool.acquire() as connection:
        for at in (days.old, days.young):
            event_id = await OWNER.opening(connection, at)
            await OWNER.event(connection, at, event_id=event_id, cost=10)
            await OWNER.adjustment(connection, event_id, at, -3)
    await roll_up(pool)
    sums = await pool.fetch(DAYS)
    assert [tuple(row) for row in sums] == [(days.old.date(), 1, 7), (days.young.date(), 1, 7)]
    assert await retire(pool, KEEP) == 2
    assert (await left(pool, days.old), await left(pool, days.young)) == (0, 3)
    assert await pool.fetch(DAYS) == sums
    assert await pool.fetchval("SELECT min(hour) FROM usage_hour") == days.young
    assert await pool.fetchval("SELECT min(hour) FROM usage_session") == days.young
    (state,) = await pool.fetch("SELECT retired_before, hours_retired_before FROM rollup_state")
    assert tuple(state) == ((days.old + DAY).date(), (days.today - 3 * DAY).date())
    assert await retire(pool, KEEP) == 0


async def test_nothing_goes_unless_it_was_asked_for(pool: Pool, days: Days) -> None:
    async with pool.acquire() as connection:
        await OWNER.event(connection, days.old)
    await roll_up(pool)
    assert await retire(pool, Retention(opens_days=2)) == 1  # the empty partition of OPENs
    assert await left(pool, days.old) == 2
    assert await pool.fetchval("SELECT count(*) FROM usage_hour") == 1


async def test_an_opening_that_is_not_closed_keeps_its_day(pool: Pool, days: Days) -> None:
    async with pool.acquire() as connection:
        event_id = await OWNER.opening(connection, days.old)
        await OWNER.event(connection, days.old)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 0
        assert await left(pool, days.old) == 3
        await OWNER.event(connection, days.old, event_id=event_id)
    await roll_up(pool)
    assert await retire(pool, KEEP) == 2


async def test_an_event_that_is_not_rolled_up_keeps_its_day(pool: Pool, days: Days) -> None:
    async with pool.acquire() as connection:
        await OWNER.event(connection, days.old)
    assert await retire(pool, KEEP) == 1
    assert await left(pool, days.old) == 2
    await roll_up(pool)
    assert await retire(pool, KEEP) == 1


async def test_traffic_does_not_wait_for_a_table_in_use(pool: Pool, days: Days, postgres_dsn: str) -> None:
    """A long report keeps the partition; the next run gets it."""
    async with connected(postgres_dsn) as report:
        await report.execute("BEGIN")
        await report.execute("SELECT count(*) FROM usage_event")
        async with pool.acquire() as connection:
            await OWNER.event(connection, days.old)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 1
        assert await left(pool, days.old) == 2
        await report.execute("COMMIT")
    assert await retire(pool, KEEP) == 1


async def test_what_comes_for_a_retired_day_is_added_and_retired_in_turn(pool: Pool, days: Days) -> None:
    async with pool.acquire() as connection:
        event_id = await OWNER.event(connection, days.old, cost=10)
        await roll_up(pool)
        await retire(pool, KEEP)
        await connection.execute("SELECT penstock_make_partitions($1, 1)", days.old.date())  # as the writer does
        await OWNER.event(connection, days.old, cost=100)
        await OWNER.adjustment(connection, event_id, days.old, -1)
    await roll_up(pool)
    sums = await pool.fetch(DAYS)
    assert [tuple(row) for row in sums] == [(days.old.date(), 2, 109)]
    assert await retire(pool, KEEP) == 2
    assert await left(pool, days.old) == 0
    assert await pool.fetch(DAYS) == sums


async def test_what_was_closed_for_a_replica_is_kept_for_its_own_late_word(pool: Pool, days: Days) -> None:
    """Dropped, the replica's own CLOSE would find nothing to correct and be billed beside the estimate."""
    async with pool.acquire() as connection:
        reaped = await OWNER.event(connection, days.old, cost=10, reaped=True)
        told = await OWNER.event(connection, days.old, cost=10, reaped=True)
        await OWNER.adjustment(connection, told, days.old, -4, late_close=True)
        await OWNER.event(connection, days.old, cost=10)
        await roll_up(pool)
        assert await retire(pool, KEEP) == 2
        assert await connection.fetchval("SELECT array_agg(event_id) FROM usage_event") == [reaped]
        await retire(pool, KEEP)
        assert await connection.fetchval("SELECT count(*) FROM usage_event") == 1
        assert await roll_up(pool) == 0, "what is kept was counted before"
        await OWNER.adjustment(connection, reaped, days.old, -4, late_close=True)
    await roll_up(pool)
    assert [tuple(row) for row in await pool.fetch(DAYS)] == [(days.old.date(), 3, 22)]
    await retire(pool, KEEP)
    assert await pool.fetchval("SELECT count(*) FROM usage_event") == 0


@pytest.mark.parametrize("kind", ["usage_open", "usage_event"])
async def test_nothing_young_is_dropped_whatever_is_asked(pool: Pool, days: Days, kind: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="before it is 2 days old"):
        await pool.execute("SELECT penstock_retire_partition($1, $2)", kind, days.young.date())
    with pytest.raises(asyncpg.RaiseError, match="before it is 2 days old"):
        await pool.execute("SELECT penstock_retire_hours($1, 1)", (days.today - DAY).date())


async def test_no_other_table_is_dropped(pool: Pool, days: Days) -> None:
    with pytest.raises(asyncpg.RaiseError, match="usage_open or usage_event"):
        await pool.execute("SELECT penstock_retire_partition('usage_day', $1)", days.old.date())
