"""The serving role of the documentation: enough to serve and to keep the ledger, and nothing beside that."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admin.statement_sums import close_due
from gateway.admin.webhook_deliveries import ping_webhook
from gateway.domain.principal import Level
from gateway.settle.reaper import REPLICAS_KEPT
from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.ledger import all_closed
from tests.support.openings import Replica
from tests.support.postgres import ask, connected
from tests.support.records import close_record
from tests.support.roles import execute, serving_role
from tests.support.rollups import Owner
from tests.support.servers import run_blocking
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for
from tests.support.webhooks import Receiver, make_webhook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID

REAPED_S_MAX = 30.0
REFUSED = {
    "change a record": "UPDATE usage_event SET completion_tokens = 0",
    "remove a record": "DELETE FROM usage_event",
    "remove an opening": "DELETE FROM usage_open",
    "change a correction": "UPDATE usage_adjustment SET cost_pico_usd = 0",
    "remove a correction": "DELETE FROM usage_adjustment",
    "change a statement": "UPDATE statement_line SET cost_pico_usd = 0",
    "remove a statement": "DELETE FROM statement",
    "change a sum": "UPDATE usage_day SET cost_pico_usd = 0",
    "make a tenant": "INSERT INTO organization (name) VALUES ('mine')",
    "make a key": "UPDATE api_key SET revoked_at = NULL",
    "raise a limit": "UPDATE limit_rule SET tokens_per_minute = 1000000",
    "lead webhooks elsewhere": "UPDATE webhook SET url = 'https://elsewhere.example.com/'",
    "make a webhook": "INSERT INTO webhook (url, events) VALUES ('https://mine.example.com/', '{budget.threshold}')",
    "choose a secret": "UPDATE webhook_secret SET secret_nonce = secret_nonce",
    "change a price": "UPDATE model_price SET output_pico_usd = 0",
    "read who administers": "SELECT * FROM admin_credential",
    "make a table": "CREATE TABLE mine (id int)",
    "drop a partition": "DROP TABLE usage_event CASCADE",
    "replace a function": "CREATE OR REPLACE FUNCTION penstock_notify_key() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
}

DROP_PARTITIONS = """
DO $$
DECLARE partition text;
BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON oid = inhrelid AND relkind = 'r' LOOP
        EXECUTE 'DROP TABLE ' || partition;
    END LOOP;
END
$$
"""


@pytest.fixture
def serving_dsn(postgres_dsn: str) -> Iterator[str]:
    """The fresh database's address for a role made as the documentation says, under a name of its own."""
    with serving_role(postgres_dsn) as dsn:
        yield dsn


def test_a_replica_serves_and_keeps_the_ledger(
    postgres_dsn: str, serving_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    """Also when today's partitions are missing: the function that makes them runs as their owner."""
    run_blocking(execute(postgres_dsn, DROP_PARTITIONS))
    tenant = make_tenant(postgres_dsn, requests_per_minute=100)
    with EngineProcess("sim", output_tokens=7) as engine:
        config = write_config(tmp_path / "penstock.yaml", [engine.url])
        with GatewayProcess(config, serving_dsn, redis_url) as gateway:
            body = {"model": "sim", "messages": [{"role": "user", "content": "hello"}]}
            assert gateway.http(tenant.key).post("/v1/chat/completions", body).status == 200
            (row,) = all_closed(postgres_dsn, tenant, 1)
            assert (row["status"], row["coverage"], row["completion_tokens"]) == ("ok", "exact", 7)
            assert row["price_id"] is not None
            assert gateway.terminate() == 0
        faults = [line for line in gateway.log_lines() if line["level"] in {"error", "critical"}]
    assert faults == []


def test_it_closes_for_replicas_that_are_gone_and_is_corrected_by_them(
    engine: EngineProcess, postgres_dsn: str, serving_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    gone = Replica(postgres_dsn)
    run_blocking(gone.beat(ago=REPLICAS_KEPT * 2))
    opened = run_blocking(gone.open())
    run_blocking(gone.checkpoint({}))
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    often = {"checkpoint_interval_s": 0.1, "reaper_patience_s": 3, "reconcile_interval_s": 1}
    with GatewayProcess(config, serving_dsn, redis_url, **often) as gateway:
        wait_for(lambda: run_blocking(gone.reaped()), "its event is closed", REAPED_S_MAX)
        known = "SELECT count(*) FROM replica_checkpoint WHERE boot_id = $1"
        wait_for(lambda: run_blocking(ask(postgres_dsn, known, gone.boot_id)) == 0, "and it is forgotten")
        wait_for(lambda: gateway.metrics().get("penstock_ledger_compared_timestamp_seconds"), "all was compared")
        assert gateway.terminate() == 0
        assert [line for line in gateway.log_lines() if line["event"] == "duty_failed"] == [], "no duty lacks a right"
    gone.dsn = serving_dsn
    run_blocking(gone.close(close_record(opened)))
    assert run_blocking(ask(postgres_dsn, "SELECT count(*) FROM usage_adjustment")) == 1
    assert run_blocking(ask(postgres_dsn, "SELECT count(*) FROM replica_checkpoint")) == 0, "nothing was in flight"


async def test_it_closes_months(postgres_dsn: str, serving_dsn: str) -> None:
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    now = dt.datetime.now(dt.UTC)
    async with connected(postgres_dsn) as owner:
        await Owner(tenant.organization_id, tenant.team_id).event(owner, now)
    async with asyncpg.create_pool(serving_dsn, min_size=1, max_size=1) as pool:
        assert await close_due(pool, after=dt.timedelta(hours=1), now=now + dt.timedelta(days=32)) == 1
    assert await ask(postgres_dsn, "SELECT count(*) FROM statement_line") == 1


@pytest.mark.parametrize("wish", REFUSED)
async def test_it_may_do_nothing_else(serving_dsn: str, wish: str) -> None:
    async with connected(serving_dsn) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(REFUSED[wish])


def test_it_tells_webhooks_and_disables_them(
    engine: EngineProcess, postgres_dsn: str, serving_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn, budget_day_pico_usd=1)
    tenant.revoke()
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with (
        Receiver(answers=[(500, {}), (204, {}), (410, {})]) as receiver,
        GatewayProcess(config, serving_dsn, redis_url, webhook_private_addresses="127.0.0.1") as gateway,
    ):
        webhook = run_blocking(make_webhook(postgres_dsn, receiver.url, tenant.organization_id))
        tenant.limit(Level.TEAM, budget_day_pico_usd=2)  # a change that is to be looked at
        assert gateway.http(tenant.key).get("/v1/models").status == 401
        failing = "SELECT count(*) FROM webhook_health WHERE failures = 1"
        wait_for(lambda: run_blocking(ask(postgres_dsn, failing)), "it is told, and fails")
        for count in (2, 3):
            run_blocking(ping(postgres_dsn, webhook.about.id))
            wait_for(lambda count=count: len(receiver.received) == count, "it is told again")  # type: ignore[misc]  # bound now
        disabled = "SELECT disabled_reason FROM webhook"
        wait_for(lambda: run_blocking(ask(postgres_dsn, disabled)), "it is disabled, being gone")
        left = "SELECT count(*) FROM webhook_budget_change"
        wait_for(lambda: run_blocking(ask(postgres_dsn, left)) == 0, "changed budgets are looked at")
        assert gateway.terminate() == 0
        troubles = {"duty_failed", "notices_lost"}
        assert [line for line in gateway.log_lines() if line["event"] in troubles] == [], "no duty lacks a right"


async def ping(dsn: str, webhook: UUID) -> None:
    """Queue a ping, as the owner."""
    async with transaction_on(dsn) as db:
        await ping_webhook(db, PLATFORM, str(webhook))


async def test_what_it_makes_in_its_own_session_misleads_no_function_of_the_owner(serving_dsn: str) -> None:
    """Temporary tables are everybody's right, and would be found first by a function that did not look elsewhere."""
    async with connected(serving_dsn) as connection:
        await connection.execute("CREATE TEMPORARY TABLE usage_open_20310330 (id int)")
        await connection.execute("CREATE TEMPORARY TABLE usage_event_20310330 (id int)")
        assert await connection.fetchval("SELECT penstock_make_partitions('2031-03-30', 1)") == 3
        names = await connection.fetch("SELECT inhrelid::regclass::text FROM pg_inherits ORDER BY 1")
    assert {"public.usage_event_20310330", "public.usage_open_20310330"} <= {row[0] for row in names}
