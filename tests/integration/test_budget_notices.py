"""Budgets that are spent by half, by 80 % and wholly: noticed from the ledger, told once, whoever notices and when."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from gateway.domain.budget import BudgetKey
from gateway.domain.principal import BudgetPeriod, Level
from gateway.notify import budget_store, budget_watch
from gateway.notify.budget_watch import BudgetWatch
from gateway.notify.events import BUDGET_THRESHOLD
from gateway.notify.notices import Notices
from gateway.observe.webhooks import WebhookMetrics
from gateway.settle.rollup import roll_up
from gateway.units import PICO_USD_PER_USD, PicoUsd
from tests.support.postgres import ask
from tests.support.rollups import Owner
from tests.support.tenants import Tenant, make_tenant
from tests.support.terms import term_on
from tests.support.waiting import wait_until_asked
from tests.support.webhooks import make_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DAY = dt.timedelta(days=1)
USD = PICO_USD_PER_USD
EVENTS = """SELECT coalesce(jsonb_agg(payload -> 'data' ORDER BY created_at,
    (payload #>> '{data,threshold_percent}')::integer), '[]')::text FROM webhook_event"""
URL = "https://hooks.example.com/"


class Bench:
    """A watch over a fresh database with one tenant, whose organization has a webhook unless a test says otherwise."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], tenant: Tenant) -> None:
        self.dsn = dsn
        self.pool = pool
        self.tenant = tenant
        self.owner = owner_of(tenant)
        self.metrics = WebhookMetrics(CollectorRegistry())
        self.watch = BudgetWatch(pool, self.metrics)

    async def spend(self, usd: float, *, model: str = "sim", at: dt.datetime | None = None) -> None:
        """Let the tenant spend."""
        async with self.pool.acquire() as connection:
            await self.owner.event(connection, at or now(), cost=round(usd * USD), model=model)

    async def limit(self, level: Level, model: str | None = None, **budgets: float) -> None:
        """Set budgets in US dollars, by period."""
        values = {f"budget_{period}_pico_usd": PicoUsd(round(usd * USD)) for period, usd in budgets.items()}
        await asyncio.to_thread(self.tenant.limit, level, model=model, **values)

    async def look(self, watch: BudgetWatch | None = None) -> list[tuple[Any, ...]]:
        """Let it look, in a term of its own, and return all that was told so far: level, period, percent, amounts."""
        async with term_on(self.dsn) as term:
            await (watch or self.watch).run(term)
        return await self.told()

    async def told(self) -> list[tuple[Any, ...]]:
        """Return what was told so far."""
        return [
            (each["level"], each["period"], each["threshold_percent"], each["budget_usd"], each["spent_usd"])
            for each in json.loads(await ask(self.dsn, EVENTS))
        ]


def now() -> dt.datetime:
    """Return the time: not that at which the suite began, which may have been yesterday."""
    return dt.datetime.now(dt.UTC)


def today() -> dt.datetime:
    """Return when the day began."""
    return now().replace(hour=0, minute=0, second=0, microsecond=0)


def owner_of(tenant: Tenant) -> Owner:
    """Who a tenant's rows of the ledger belong to."""
    return Owner(tenant.organization_id, tenant.team_id, tenant.user_id, tenant.key_id)


@pytest.fixture
async def bench(postgres_dsn: str) -> AsyncIterator[Bench]:
    """A watch, a tenant and a webhook."""
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    await make_webhook(postgres_dsn, URL, tenant.organization_id)
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as pool:
        await pool.execute("SELECT penstock_make_partitions($1, 1)", (now() - DAY).date())
        made = Bench(postgres_dsn, pool, tenant)
        assert await made.look() == []
        yield made


async def test_each_threshold_is_told_once(bench: Bench) -> None:
    await bench.limit(Level.KEY, day=10)
    await bench.spend(4.9)
    assert await bench.look() == []
    await bench.spend(0.1)
    half = ("key", "day", 50, "10", "5")
    assert await bench.look() == [half]
    await bench.spend(1)
    assert await bench.look() == [half], "between two thresholds there is nothing to tell"
    await roll_up(bench.pool)
    await bench.spend(3)
    most = ("key", "day", 80, "10", "9")
    assert await bench.look() == [half, most]
    await bench.spend(2)
    for _ in range(2):
        assert await bench.look() == [half, most, ("key", "day", 100, "10", "11")]
    (data, *_) = json.loads(await ask(bench.dsn, EVENTS))
    assert (data["organization"], data["limit_id"]) == (bench.tenant.organization, str(await rule_id(bench)))
    assert data["subject"] == bench.tenant.key_public_id
    assert (data["model"], data["reason"]) == (None, "spent")
    assert dt.datetime.fromisoformat(data["period_start"]) == today()


async def rule_id(bench: Bench) -> Any:
    return await ask(bench.dsn, "SELECT id FROM limit_rule WHERE subject_id = $1", bench.tenant.key_id)


async def test_whoever_jumps_passes_every_threshold_of_every_budget_above(bench: Bench) -> None:
    for level in (Level.ORGANIZATION, Level.TEAM, Level.USER):
        await bench.limit(level, month=10)
    await bench.limit(Level.ORGANIZATION, model="big", week=1)
    await bench.limit(Level.TEAM, model="small", day=1)
    await bench.spend(9, model="big")
    assert set(await bench.look()) == {
        *((level, "month", percent, "10", "9") for level in ("organization", "team", "user") for percent in (50, 80)),
        *(("organization", "week", percent, "1", "9") for percent in (50, 80, 100)),
    }


async def test_a_changed_amount_is_another_budget(bench: Bench) -> None:
    await bench.limit(Level.TEAM, day=100)
    await bench.spend(6)
    assert await bench.look() == []
    await bench.limit(Level.TEAM, day=10)
    half = ("team", "day", 50, "10", "6")
    assert await bench.look() == [half], "without anything being spent"
    await bench.limit(Level.TEAM, day=7)
    lower = [half, ("team", "day", 50, "7", "6"), ("team", "day", 80, "7", "6")]
    assert await bench.look() == lower
    await bench.limit(Level.TEAM, day=10)
    await bench.spend(0.1)
    assert await bench.look() == lower, "that it is half of 10 was told"
    await bench.limit(Level.TEAM, day=0)
    assert await bench.look() == lower, "nobody spends a part of nothing"


async def test_other_days_and_others_money_do_not_count(bench: Bench) -> None:
    await bench.limit(Level.USER, day=1)
    await bench.spend(5, at=now() - DAY)
    async with bench.pool.acquire() as connection:
        await Owner(user_id=bench.tenant.user_id).event(connection, now(), cost=5 * USD)
    assert await bench.look() == []


async def test_what_is_spent_between_two_leaders_is_noticed_by_the_next(bench: Bench) -> None:
    await bench.limit(Level.KEY, day=10)
    await bench.spend(6)
    await bench.look()
    await bench.spend(3)
    await roll_up(bench.pool)
    assert await bench.look(BudgetWatch(bench.pool, bench.metrics)) == [
        ("key", "day", 50, "10", "6"), ("key", "day", 80, "10", "9")
    ]  # fmt: skip


async def test_two_leaders_tell_once(bench: Bench) -> None:
    await bench.limit(Level.KEY, day=10, month=10)
    await bench.spend(9)
    others = [BudgetWatch(bench.pool, bench.metrics) for _ in range(2)]
    await asyncio.gather(*(bench.look(other) for other in others))
    assert len(await bench.told()) == 4


async def test_what_could_not_be_told_is_told_the_next_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.limit(Level.KEY, day=10)
    await bench.spend(4.9)

    async def fails(*_: object) -> None:
        raise ConnectionResetError

    async with term_on(bench.dsn) as term:  # the same term: what it remembers of budgets must not say that all is told
        await bench.watch.run(term)
        await bench.spend(0.2)
        with monkeypatch.context() as broken:
            broken.setattr(budget_store, "move", fails)
            with pytest.raises(ConnectionResetError):
                await bench.watch.run(term)
        assert await bench.told() == []
        await bench.watch.run(term)
    assert await bench.told() == [("key", "day", 50, "10", "5.1")]


async def test_a_row_whose_transaction_ends_behind_others_is_not_missed(bench: Bench) -> None:
    await bench.limit(Level.KEY, day=10)
    async with bench.pool.acquire() as slow, slow.transaction():
        await bench.owner.event(slow, now(), cost=6 * USD)
        await bench.spend(1)
        assert await bench.look() == []
        assert await bench.look() == []
    assert await bench.look() == [("key", "day", 50, "10", "7")]


async def test_more_than_one_run_can_sum_up_comes_with_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_watch, "SUMMED_MAX", 2)
    for level in (Level.ORGANIZATION, Level.TEAM, Level.USER, Level.KEY):
        await bench.limit(level, day=10)
    await ask(bench.dsn, "DELETE FROM webhook_budget_change")
    await bench.spend(6)
    async with term_on(bench.dsn) as term:
        for _ in range(3):
            await bench.watch.run(term)
    assert {each[0] for each in await bench.told()} == {"organization", "team", "user", "key"}


async def test_nobody_looks_where_nobody_wants_to_know(bench: Bench) -> None:
    await ask(bench.dsn, "UPDATE webhook SET events = '{key.revoked_used}'")
    await bench.limit(Level.KEY, day=10)
    await bench.spend(6)
    assert await bench.look() == []
    assert await ask(bench.dsn, "SELECT looked_until FROM webhook_watch") is None
    await make_webhook(bench.dsn, URL)
    await bench.spend(0.5)
    assert await bench.look() == [("key", "day", 50, "10", "6.5")], "the platform's webhook hears of every tenant"
    assert await ask(bench.dsn, "SELECT count(*) FROM webhook_delivery") == 1, "and only that one was asked for"


async def test_a_database_restored_into_a_younger_server_is_watched(bench: Bench) -> None:
    await ask(bench.dsn, "UPDATE webhook_watch SET looked_until = '1000000000000'")
    await bench.limit(Level.KEY, day=10)
    await bench.look()
    await bench.spend(6)
    assert await bench.look() == [("key", "day", 50, "10", "6")]


async def test_a_request_that_is_refused_for_a_budget_is_told(bench: Bench) -> None:
    """What is left may not do for a request long before all is spent: then nobody spends the rest."""
    await bench.limit(Level.TEAM, model="sim", day=10)
    await bench.spend(7.5)
    notices = Notices(bench.pool, bench.metrics)
    begun = today()
    tenant = bench.tenant
    refused = BudgetKey(tenant.organization_id, Level.TEAM, tenant.team_id, "sim", BudgetPeriod.DAY, begun)
    gone = BudgetKey(tenant.organization_id, Level.TEAM, tenant.team_id, None, BudgetPeriod.DAY, begun)
    for key in (refused, gone, refused):
        notices.budget_refused(key)
    writing = asyncio.ensure_future(notices.run())
    told = await wait_until_asked(bench.told, "it is told")
    assert told == [("team", "day", 100, "10", "7.5")]
    assert json.loads(await ask(bench.dsn, EVENTS))[0]["reason"] == "refused"
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_the_work_is_in_what_was_spent_and_not_in_how_many_budgets_there_are(bench: Bench) -> None:
    async with bench.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # no triggers: nobody hears of them
        await connection.execute(
            """
            INSERT INTO limit_rule (organization_id, level, subject_id, budget_day_pico_usd)
            SELECT $1, 'key', gen_random_uuid(), 1 FROM generate_series(1, 100000)
            """,
            bench.tenant.organization_id,
        )
    await bench.limit(Level.KEY, day=10)
    await bench.spend(6)
    async with bench.pool.acquire() as connection:
        for analyzed in (False, True):
            if analyzed:
                await connection.execute("ANALYZE limit_rule")
            state = await budget_store.state(connection)
            plan = await connection.fetchval(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {budget_store.SPENT_SINCE}",
                BUDGET_THRESHOLD,
                str(state.looked_until),
                now() - 31 * DAY,
                now() + DAY,
            )
            (root,) = json.loads(plan)
            rules = [each for each in nodes(root["Plan"]) if each.get("Relation Name") == "limit_rule"]
            assert {each["Node Type"] for each in rules} <= {"Index Scan", "Bitmap Heap Scan"}
            assert rules
            assert sum(each["Shared Hit Blocks"] + each["Shared Read Blocks"] for each in rules) < 50
    assert await bench.look() == [("key", "day", 50, "10", "6")]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all nodes of a plan."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]
