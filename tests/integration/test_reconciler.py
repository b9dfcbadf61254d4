"""The leader's reconciliation: gauges and log lines when accounts drift, and none when they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.billing import execute, rows
from tests.support.chat import chat
from tests.support.gateway import GatewayProcess, write_config
from tests.support.ledger import all_closed
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import EngineProcess
    from tests.support.tenants import Tenant

KINDS = {"rollups", "replicas", "engines"}
OFTEN = {"reconcile_interval_s": 1, "checkpoint_interval_s": 0.2}


def drift_of(gateway: GatewayProcess, kind: str) -> float | None:
    """Return the gauge of one kind of account, None before the first comparison."""
    return gateway.metrics().get(f'penstock_ledger_drift_tokens{{kind="{kind}"}}')


def drifts(gateway: GatewayProcess) -> set[str]:
    """Return the kinds of accounts that drift."""
    return {kind for kind in KINDS if drift_of(gateway, kind)}


def told(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    """Return the log lines of an event."""
    return [line for line in gateway.log_lines() if line["event"] == event]


def test_drift_is_told_and_so_is_its_end(
    engine: EngineProcess, postgres_dsn: str, redis_url: str, tenant: Tenant, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, redis_url, **OFTEN) as gateway:
        assert drift_of(gateway, "rollups") is None
        wait_for(lambda: drift_of(gateway, "engines") == 0, "everything was compared")
        client = gateway.http(tenant.key)
        for _ in range(3):
            assert client.post("/v1/chat/completions", chat(max_tokens=5)).status == 200
        all_closed(postgres_dsn, tenant, 3)
        wait_for(lambda: len(told(gateway, "ledger_not_compared")) == 1, "the engine was read for the first time")
        assert told(gateway, "ledger_drift") == []
        rolled = "SELECT FROM usage_day HAVING sum(requests) = 3"
        wait_for(lambda: rows(postgres_dsn, rolled), "the events are rolled up")
        change = "UPDATE usage_event SET completion_tokens = completion_tokens + $1::integer"
        execute(postgres_dsn, change, 1000)
        wait_for(lambda: drifts(gateway) == KINDS, "the drift is told")
        assert {line["kind"] for line in told(gateway, "ledger_drift")} == KINDS
        execute(postgres_dsn, change, -1000)
        wait_for(lambda: drifts(gateway) == set(), "its end is told")
