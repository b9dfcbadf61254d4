"""Billing series: exact, the same after kill -9, and never falling whatever is corrected or retired."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway.settle.billing import BillingSeries
from gateway.settle.retention import Retention, retire
from gateway.settle.rollup import roll_up
from tests.support.engine import EngineProcess, sampled
from tests.support.gateway import GatewayProcess, write_config
from tests.support.postgres import connected
from tests.support.rollups import Owner
from tests.support.servers import run_blocking
from tests.support.tenants import Tenant, make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.storage.postgres import Pool

NOW = dt.datetime.now(dt.UTC)
OLD = NOW - dt.timedelta(days=10)
COST = 1_500_000_000_000
NET = "penstock_billing_cost_usd_total"
CREDIT = "penstock_billing_credits_cost_usd_total"
REQUESTS = "penstock_billing_requests_total"


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database with a place for an old day."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        await opened.execute("SELECT penstock_make_partitions($1, 1)", OLD.date())
        yield opened


class Exported:
    """What one replica exports, read again for every look."""

    def __init__(self, pool: Pool, **bounds: int) -> None:
        self._registry = CollectorRegistry()
        self.series = BillingSeries(pool, self._registry, every_s=1, **bounds)
        self._pool = pool

    async def look(self) -> dict[str, float]:
        """Roll up, read, and return the samples."""
        await roll_up(self._pool)
        await self.series.read()
        return self.samples()

    def samples(self) -> dict[str, float]:
        """Return the samples as they stand."""
        return sampled(generate_latest(self._registry).decode())


async def test_charges_and_credits_are_counted_apart_and_none_ever_falls(pool: Pool) -> None:
    owner, exported = Owner(), Exported(pool)
    async with pool.acquire() as connection:
        event_id = await owner.event(connection, OLD, cost=COST)
        first = await exported.look()
        await owner.adjustment(connection, event_id, OLD, -500_000_000_000, tokens=-30)
        await owner.adjustment(connection, event_id, OLD, 250_000_000_000, tokens=5)
        second = await exported.look()
        assert await retire(pool, Retention(opens_days=2, events_days=2, hours_days=2)) == 2
        third = await exported.look()
    labels = f'organization="{owner.organization_id}",team="{owner.team_id}",team_id="{owner.team_id}"'
    prompt = f'penstock_billing_tokens_total{{kind="prompt",model="sim",{labels}}}'
    credited = f'penstock_billing_credits_tokens_total{{kind="prompt",model="sim",{labels}}}'
    assert (first[NET], first[CREDIT], first[prompt], first[REQUESTS]) == (1.5, 0, 100, 1)
    assert (second[NET], second[CREDIT], second[prompt], second[credited]) == (1.75, 0.5, 105, 30)
    billing = {name for name in second if name.startswith("penstock_billing") and name.endswith(("_total", "}"))}
    assert {name: third[name] for name in billing} == {name: second[name] for name in billing}


async def test_a_team_that_takes_another_s_name_has_series_of_its_own(pool: Pool, postgres_dsn: str) -> None:
    tenants = [make_tenant(postgres_dsn) for _ in range(2)]
    exported = Exported(pool)
    async with pool.acquire() as connection:
        await Owner(tenants[0].organization_id, tenants[0].team_id).event(connection, NOW)
        name = series_of(tenants[0])
        assert (await exported.look())[name] == 1
        await connection.execute("UPDATE organization SET deleted_at = now() WHERE id = $1", tenants[0].organization_id)
        await connection.execute(
            "UPDATE organization SET name = $1 WHERE id = $2", tenants[0].organization, tenants[1].organization_id
        )
        await connection.execute("UPDATE team SET name = $1 WHERE id = $2", tenants[0].team, tenants[1].team_id)
        await Owner(tenants[1].organization_id, tenants[1].team_id).event(connection, NOW)
        samples = await exported.look()
    renamed = replace(tenants[1], organization=tenants[0].organization, team=tenants[0].team)
    assert (samples[name], samples[series_of(renamed)]) == (1, 1)


async def test_there_are_no_more_series_than_the_bound(pool: Pool) -> None:
    exported = Exported(pool, label_sets_max=2)
    async with pool.acquire() as connection:
        for model in ("a", "b", "c"):
            await Owner(UUID(int=1), UUID(int=2)).event(connection, NOW, model=model)
            await exported.look()
    samples = exported.samples()
    assert (samples[REQUESTS], samples["penstock_billing_label_sets_left_out"]) == (2, 1)


async def test_before_anything_was_read_nothing_is_told_but_that(pool: Pool) -> None:
    samples = Exported(pool).samples()
    assert samples["penstock_billing_age_seconds"] == float("inf")
    assert REQUESTS not in samples


def test_the_series_go_on_after_kill_9_and_a_late_correction(
    engine: EngineProcess, postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    body = {"model": "sim", "messages": [{"role": "user", "content": "hello"}]}
    with GatewayProcess(config, postgres_dsn, redis_url, billing_interval_s=0.1, leader_silence_max_s=1) as gateway:
        assert gateway.http(tenant.key).post("/v1/chat/completions", body).status == 200
        before = wait_for(lambda: billed(gateway, tenant), "the request is billed", 20)
        gateway.kill()
        gateway.start()
        assert wait_for(lambda: billed(gateway, tenant), "it is billed still") == before
        run_blocking(correct(postgres_dsn))
        wait_for(lambda: gateway.metrics().get(CREDIT), "the correction is a credit", 20)
        assert billed(gateway, tenant) == before
        assert gateway.http(tenant.key).post("/v1/chat/completions", body).status == 200
        wait_for(lambda: billed(gateway, tenant) == 2 * before, "both are billed", 20)


def series_of(tenant: Tenant) -> str:
    """The series of a tenant's requests."""
    labels = f'model="sim",organization="{tenant.organization}",team="{tenant.team}",team_id="{tenant.team_id}"'
    return f"{REQUESTS}{{{labels}}}"


def billed(gateway: GatewayProcess, tenant: Tenant) -> float:
    """How many requests of a tenant are billed, 0 when none is known of."""
    return gateway.metrics().get(series_of(tenant), 0.0)


async def correct(dsn: str) -> None:
    """Take back what the only request cost."""
    async with connected(dsn) as connection:
        (row,) = await connection.fetch("SELECT * FROM usage_event")
        owner = Owner(row["organization_id"], row["team_id"], row["user_id"], row["key_id"])
        await owner.adjustment(connection, row["event_id"], row["opened_at"], -int(row["cost_pico_usd"]))
