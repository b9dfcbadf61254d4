"""Sums over any period are what the ledger's rows add up to, and are read without reading the ledger whole."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.admin.scope import PLATFORM
from gateway.admin.usage import Period
from gateway.admin.usage_sql import Grouping
from gateway.domain.budget import BudgetKey
from gateway.domain.principal import BudgetPeriod, Level
from gateway.errors import InvalidRequest
from gateway.settle.retention import Retention, retire
from gateway.settle.rollup import roll_up
from gateway.settle.spending import Spending
from tests.support.rollups import Owner
from tests.support.usage import usage_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

NOW = dt.datetime.now(dt.UTC)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
DAYS = 4
ROWS = 150
PERIODS = 40
MANY = 20_000

RAW = """
SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(prompt_tokens), 0)::bigint, coalesce(sum(estimated), 0)::bigint
  FROM penstock_usage_parts('0'::xid8, '18446744073709551615'::xid8, $1, $2)
"""
SCANS = """
SELECT sum(seq_scan) FROM pg_stat_user_tables
 WHERE relname ~ '^usage_(event|adjustment|open)_' AND n_live_tup > 100
"""
FILL = """
INSERT INTO usage_event (event_id, opened_at, boot_id, organization_id, team_id, key_id, model, served_model, endpoint,
    streamed, attempts, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd, status,
    coverage, duration_ms)
SELECT gen_random_uuid(), $1::timestamptz + make_interval(secs => n), $2, $2, $2, $2, 'sim', 'sim', 'completions', true,
       1, 1, 0, 1, 0, 1, 'ok', 'exact', 1 FROM generate_series(1, $3::int) AS n
"""


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool of one connection on a fresh database with places for the last days."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1) as opened:
        await opened.execute("SELECT penstock_make_partitions($1, $2)", (MIDNIGHT - DAYS * DAY).date(), DAYS + 1)
        yield opened


def some_moment(dice: random.Random) -> dt.datetime:
    """A moment of the last days; often one at which an hour or a day begins."""
    moment = MIDNIGHT - dice.randint(0, DAYS - 1) * DAY
    if dice.random() < 0.7:
        moment += dice.randint(0, 23) * HOUR
    if dice.random() < 0.5:
        moment += dt.timedelta(seconds=dice.randint(0, 3599), microseconds=dice.choice((0, 1, 999_999)))
    return moment


async def test_a_report_of_any_period_is_exact_in_every_state_of_the_rollup(pool: Pool) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)  # noqa: S311 - a test's choices; the seed is in its messages
    owners = [Owner(), Owner()]
    async with pool.acquire() as db:
        for _ in range(ROWS):
            owner, at = dice.choice(owners), some_moment(dice)
            event_id = await owner.event(db, at, coverage=dice.choice(("exact", "estimated")))
            if dice.random() < 0.3:
                await owner.adjustment(db, event_id, at, 1, tokens=dice.randint(-5, 5))
            if dice.random() < 0.1:
                await db.execute("SELECT penstock_roll_up(7)")
        for _ in range(PERIODS):
            since, until = sorted((some_moment(dice), some_moment(dice)))
            if since == until:
                until += dt.timedelta(microseconds=1)
            (raw,) = await db.fetch(RAW, since, until)
            rows = await usage_rows(db, PLATFORM, Grouping.ORG, Period(since, until))
            sums = [sum(getattr(row, name) for row in rows) for name in ("requests", "prompt_tokens", "estimated")]
            assert sums == list(raw), (seed, since, until)


async def test_reports_want_what_is_no_longer_there_to_be_whole(pool: Pool) -> None:
    old = MIDNIGHT - DAYS * DAY + 5 * HOUR
    async with pool.acquire() as db:
        await Owner().event(db, old)
    await roll_up(pool)
    await retire(pool, Retention(opens_days=2, events_days=2))
    async with pool.acquire() as db:
        (row,) = await usage_rows(db, PLATFORM, Grouping.ORG, Period(old, MIDNIGHT))
        assert row.requests == 1
        with pytest.raises(InvalidRequest, match="only whole hours"):
            await usage_rows(db, PLATFORM, Grouping.ORG, Period(old + HOUR / 2, MIDNIGHT))
    await retire(pool, Retention(opens_days=2, events_days=2, hours_days=2))
    async with pool.acquire() as db:
        (row,) = await usage_rows(db, PLATFORM, Grouping.ORG, Period(MIDNIGHT - DAYS * DAY, MIDNIGHT))
        assert row.requests == 1
        with pytest.raises(InvalidRequest, match="only whole days"):
            await usage_rows(db, PLATFORM, Grouping.ORG, Period(old, MIDNIGHT))


async def test_once_rolled_up_no_partition_is_read_whole(pool: Pool) -> None:
    """Neither by the next pass, nor by a budget's sum; the planner knows nothing of the newest rows either way."""
    owner = Owner()
    async with pool.acquire() as db:
        await db.execute(FILL, MIDNIGHT - DAY, owner.organization_id, MANY)
        await db.execute("ANALYZE")
    await roll_up(pool, rows_max=1_000_000)
    before = await scans(pool)
    async with pool.acquire() as db:
        await owner.event(db, MIDNIGHT - DAY)
    month = BudgetKey(
        owner.organization_id, Level.ORGANIZATION, owner.organization_id, None, BudgetPeriod.WEEK, MIDNIGHT - 2 * DAY
    )
    for _ in range(8):  # also when Postgres would rather have one plan for all parameters
        assert await Spending(pool).spent([month]) == [(MANY + 7, 0)]
    assert await roll_up(pool) == 1
    assert await Spending(pool).spent([month]) == [(MANY + 7, 0)]
    assert await scans(pool) == before


async def scans(pool: Pool) -> int:
    """How often partitions that hold something were read from end to end so far."""
    async with pool.acquire() as db:
        await db.execute("SELECT pg_stat_force_next_flush()")
        await db.execute("SELECT pg_stat_clear_snapshot()")
        count: int = await db.fetchval(SCANS)
    return count
