"""Postgres stopped, frozen and back: cached keys work, unknown ones get 503, and no event is lost or doubled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.frozen import frozen, stopped
from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config
from tests.support.ledger import all_closed, opened_events
from tests.support.tenants import make_tenant_heard_of
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.engine import EngineProcess
    from tests.support.tenants import Tenant

HANG_S_MAX = 5.0
"""Only tells a hang from an answer; how fast it is, the log of each request says."""

HOLD_S = 2.0
"""Far more than a request takes here, the spool included."""

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("away", [stopped, frozen])
def test_cached_keys_work_and_every_event_is_written_when_it_is_back(
    away: Callable[[RunningServer], AbstractContextManager[None]],
    lone_gateway: GatewayProcess,
    stranger: Tenant,
    lone_tenant: Tenant,
    own_postgres: RunningServer,
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with away(own_postgres):
        for _ in range(5):
            began_s = time.monotonic()
            assert client.post(CHAT, chat()).status == 200
            assert time.monotonic() - began_s < HANG_S_MAX
        began_s = time.monotonic()
        refused = lone_gateway.http(stranger.key).post(CHAT, chat())
        assert time.monotonic() - began_s < HANG_S_MAX
        assert (refused.status, refused.error["code"]) == (503, "key_store_unavailable")
        assert int(refused.headers["retry-after-ms"]) > 0
        with client.stream(CHAT, chat(stream=True)) as stream:
            assert stream.chunks()
            assert not stream.cut
        assert lone_gateway.metrics()["penstock_spool_records"] >= 10
        ready = lone_gateway.http().get("/readyz").document
        assert (ready["ledger"], ready["spool"], ready["postgres"]) == ("spooling", "ok", "away")
    rows = all_closed(own_postgres.address, lone_tenant, 7)
    assert len({row["event_id"] for row in rows}) == 7
    assert len(opened_events(own_postgres.address, lone_tenant)) == 7
    assert {(row["status"], row["coverage"]) for row in rows} == {("ok", "exact")}
    wait_for(
        lambda: lone_gateway.http(stranger.key).post(CHAT, chat()).status == 200, "an unknown key is verified again"
    )
    assert not [line for line in lone_gateway.log_lines() if "exception" in line]
    wait_for(lambda: lone_gateway.http().get("/readyz").document["ledger"] == "ok", "groups go to Postgres again")
    turns = [line["event"] for line in lone_gateway.log_lines() if line["event"].startswith("ledger_")]
    assert turns.count("ledger_postgres_away") == turns.count("ledger_postgres_back") == 1
    assert turns.count("ledger_spooling") == turns.count("ledger_direct")


@pytest.mark.parametrize("key_cache_ttl_s", [3600.0, 0.001])
def test_who_has_waited_for_a_frozen_postgres_once_does_not_wait_for_it_again(
    key_cache_ttl_s: float, engine: EngineProcess, own_postgres: RunningServer, redis_url: str, tmp_path: Path
) -> None:
    """Neither after a hold in vain, nor after a key's verification in vain, which comes before every hold."""
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    settings = {"ledger_open_hold_ms": HOLD_S * 1000, "key_cache_ttl_s": key_cache_ttl_s}
    with GatewayProcess(config, own_postgres.address, redis_url, **(AS_SHIPPED | settings)) as gateway:
        tenant = make_tenant_heard_of(gateway, own_postgres.address)
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        all_closed(own_postgres.address, tenant, 1)
        with frozen(own_postgres):
            if key_cache_ttl_s > HOLD_S:
                assert client.post(CHAT, chat()).status == 200  # a known key: this one holds
            began_s = time.monotonic()
            answers = [client.post(CHAT, chat()) for _ in range(3)]
            assert time.monotonic() - began_s < HOLD_S, "none of them held"
            assert [answer.status for answer in answers] == [200, 200, 200]
        wait_for(lambda: gateway.metrics()["penstock_ledger_pending_events"] == 0, "the records are written")
        reasons = {line["reason"] for line in gateway.log_lines() if line["event"] == "ledger_postgres_away"}
        assert reasons == ({"no answer in time"} if key_cache_ttl_s > HOLD_S else set())


def test_a_revocation_counts_once_changes_are_heard_again(
    lone_gateway: GatewayProcess, lone_tenant: Tenant, own_postgres: RunningServer
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    with stopped(own_postgres):
        assert client.post(CHAT, chat()).status == 200
    lone_tenant.revoke()
    wait_for(lambda: client.post(CHAT, chat()).status == 401, "the revoked key is refused")
