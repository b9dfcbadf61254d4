"""What was spent of budgets, from the ledger: every level, narrowed to models, with what is in flight."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from gateway.domain.budget import LEDGER_START, BudgetKey
from gateway.domain.principal import BudgetPeriod, Level
from gateway.errors import BudgetUnknown
from gateway.settle.rollup import roll_up
from gateway.settle.spending import Spending
from tests.support.rollups import Owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

NOW = dt.datetime.now(dt.UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY = dt.timedelta(days=1)
YESTERDAY = TODAY - DAY / 2
MONTH = TODAY.replace(day=1)
USER, KEY = uuid4(), uuid4()
OWNER = Owner(user_id=USER, key_id=KEY)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database with places for the last month."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        await opened.execute("SELECT penstock_make_partitions($1, 35)", (TODAY - 32 * DAY).date())
        yield opened


def budget(level: Level = Level.ORGANIZATION, *, of: Owner = OWNER, model: str | None = None) -> BudgetKey:
    """A budget of today."""
    subject = {
        Level.ORGANIZATION: of.organization_id,
        Level.TEAM: of.team_id,
        Level.USER: of.user_id,
        Level.KEY: of.key_id,
    }[level]
    assert subject is not None
    return BudgetKey(of.organization_id, level, subject, model, BudgetPeriod.DAY, TODAY)


@pytest.mark.parametrize("rolled_up", [True, False])
async def test_each_level_and_model_has_its_own(pool: Pool, rolled_up: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    service = replace(OWNER, user_id=None, key_id=uuid4())
    sister = replace(service, team_id=uuid4(), key_id=uuid4())
    async with pool.acquire() as connection:
        await OWNER.event(connection, TODAY, cost=1)
        await OWNER.event(connection, NOW, cost=2, model="big")
        await service.event(connection, NOW, cost=4)
        await sister.event(connection, NOW, cost=8)
        await Owner().event(connection, NOW, cost=16)
        await OWNER.event(connection, YESTERDAY, cost=32)
    if rolled_up:
        await roll_up(pool)
    wanted = {
        budget(Level.ORGANIZATION): 15,
        budget(Level.TEAM): 7,
        budget(Level.USER): 3,
        budget(Level.KEY): 3,
        budget(Level.KEY, model="big"): 2,
        budget(Level.ORGANIZATION, of=Owner()): 0,
        replace(budget(), period=BudgetPeriod.MONTH, period_start=MONTH): 47 if YESTERDAY > MONTH else 15,
        replace(budget(), period_start=TODAY - DAY): 32,
    }
    assert await Spending(pool).spent(list(wanted)) == [(spent, 0) for spent in wanted.values()]
    assert await Spending(pool).spent([]) == []


async def test_what_was_taken_back_is_not_spent(pool: Pool) -> None:
    async with pool.acquire() as connection:
        event_id = await OWNER.event(connection, NOW, cost=10)
        await roll_up(pool)
        await OWNER.adjustment(connection, event_id, NOW, -4)
    assert await Spending(pool).spent([budget()]) == [(6, 0)]


async def test_requests_in_flight_count_with_what_they_may_cost(pool: Pool) -> None:
    async with pool.acquire() as connection:
        opened = await OWNER.opening(connection, NOW, cost=50)
        await OWNER.opening(connection, NOW, cost=50, model="big")
        await OWNER.opening(connection, TODAY - DAY / 2, cost=50)  # of another day, and long past its deadline
        assert await Spending(pool).spent([budget(), budget(model="big")]) == [(0, 100), (0, 50)]
        await OWNER.event(connection, NOW, cost=3, event_id=opened)
        assert await Spending(pool).spent([budget()]) == [(3, 50)]


@pytest.mark.parametrize("rolled_up", [True, False])
async def test_a_session_has_all_that_it_ever_cost(pool: Pool, rolled_up: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """Whatever the day: a session has no end; and nobody else's of the same name counts."""
    sister, stranger = replace(OWNER, key_id=uuid4(), user_id=None), Owner()
    async with pool.acquire() as connection:
        old = await OWNER.event(connection, TODAY - 6 * DAY, cost=1, session="ses_1")
        await OWNER.event(connection, NOW, cost=2, session="ses_1", model="big")
        await sister.event(connection, NOW, cost=4, session="ses_1")
        await OWNER.event(connection, NOW, cost=8, session="ses_2")
        await OWNER.event(connection, NOW, cost=16, session=None)
        await stranger.event(connection, NOW, cost=32, session="ses_1")
        for session, model in (("ses_1", "sim"), ("ses_1", "big"), ("ses_2", "sim"), (None, "sim")):
            await OWNER.opening(connection, NOW, cost=100, session=session, model=model)
        closed = await OWNER.opening(connection, NOW, cost=100, session="ses_1")
        await OWNER.event(connection, NOW, cost=64, session="ses_1", event_id=closed)
        if rolled_up:
            await roll_up(pool)
        await OWNER.adjustment(connection, old, TODAY - 6 * DAY, 128)
    of_session = BudgetPeriod.SESSION
    asked = [
        replace(budget(level, model=model), period=of_session, period_start=LEDGER_START, session=session)
        for level, model, session in (
            (Level.ORGANIZATION, None, "ses_1"),
            (Level.USER, None, "ses_1"),
            (Level.KEY, "big", "ses_1"),
            (Level.TEAM, None, "ses_2"),
            (Level.KEY, None, "ses_3"),
        )
    ]
    wanted = [(199, 200), (195, 200), (2, 100), (8, 100), (0, 0)]
    assert await Spending(pool).spent(asked) == wanted
    mixed = [asked[0], budget(), asked[3]]
    assert await Spending(pool).spent(mixed) == [wanted[0], (94, 400), wanted[3]], "in the order that was asked for"


async def test_what_was_closed_for_the_dead_is_told_apart(pool: Pool) -> None:
    async with pool.acquire() as connection:
        closed, reaped, running = [await OWNER.opening(connection, NOW, cost=50) for _ in range(3)]
        for event_id in (closed, reaped):
            await OWNER.event(connection, NOW, cost=3, event_id=event_id)
        await connection.execute("UPDATE usage_event SET reaped = true WHERE event_id = $1", reaped)
    assert await Spending(pool).reaped([closed, reaped, running]) == {reaped}
    assert await Spending(pool).reaped([]) == set()


async def test_nobody_waits_for_a_postgres_that_does_not_answer(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE usage_day IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BudgetUnknown):
            await Spending(pool).spent([budget()])
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE usage_event IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BudgetUnknown):
            await Spending(pool).reaped([uuid4()])
