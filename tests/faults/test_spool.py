"""The spool under real replicas: killed, restarted, adopted, full, unwritable. Each event once, or nothing served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat
from tests.support.command import Penstock
from tests.support.frozen import frozen, stopped
from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config
from tests.support.http import DONE
from tests.support.ledger import all_closed, both_events, opened_events
from tests.support.spool import unwritable_spool
from tests.support.tenants import make_tenant_heard_of
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.engine import EngineProcess
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
SLOW = {"tokens_per_second": 20, "output_tokens": 40}
SOON_S = 30.0


def assert_each_once(server: RunningServer, tenant: Tenant, engine: EngineProcess, count: int) -> None:
    """Assert that a tenant alone on an engine has `count` events, each opened and closed once, with all its tokens."""
    rows = all_closed(server.address, tenant, count)
    assert len(opened_events(server.address, tenant)) == len({row["event_id"] for row in rows}) == count
    assert {(row["status"], row["coverage"]) for row in rows} == {("ok", "exact")}
    counted = engine.metrics()
    assert sum(row["prompt_tokens"] for row in rows) == counted["vllm:prompt_tokens_total"]
    assert sum(row["completion_tokens"] for row in rows) == counted["vllm:generation_tokens_total"]


def segments(gateway: GatewayProcess) -> list[Path]:
    """Return the spool's files of a replica with the default spool directory of the tests."""
    return list(gateway.config.with_name("spool").glob("*/*.seg"))


def state_of(gateway: GatewayProcess) -> tuple[str, str]:
    """Return how /readyz says that the ledger and the spool are."""
    document: dict[str, Any] = gateway.http().get("/readyz").document
    return document["ledger"], document["spool"]


@pytest.mark.parametrize("away", [stopped, frozen])
def test_what_a_killed_replica_has_spooled_is_written_after_its_restart(
    away: Callable[[RunningServer], AbstractContextManager[None]],
    lone_gateway: GatewayProcess,
    lone_tenant: Tenant,
    own_postgres: RunningServer,
    engine: EngineProcess,
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with away(own_postgres):
        for streamed in (False, True) * 3:
            client.ask("POST", CHAT, chat(stream=streamed))
        wait_for(lambda: lone_gateway.metrics()["penstock_spool_records"] == 12, "all is in the spool")
        lone_gateway.kill()
        assert segments(lone_gateway)
    lone_gateway.start()
    assert_each_once(own_postgres, lone_tenant, engine, 7)
    wait_for(lambda: not segments(lone_gateway), "the spool is empty")
    assert lone_gateway.http(lone_tenant.key).post(CHAT, chat()).status == 200
    assert_each_once(own_postgres, lone_tenant, engine, 8)


def test_a_started_answer_is_in_the_spool_when_its_replica_is_killed(
    lone_gateway: GatewayProcess, lone_tenant: Tenant, own_postgres: RunningServer
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with stopped(own_postgres), client.stream(CHAT, chat(stream=True, sim=SLOW)) as stream:
        next(stream.data())
        lone_gateway.kill()
        started = stream.request_id
    lone_gateway.start()
    wait_for(
        lambda: started in {str(event) for event, _ in both_events(own_postgres.address, lone_tenant)},
        "the OPEN record of what a client was told has begun is in Postgres",
    )


def test_another_replica_drains_what_a_dead_one_left(
    engine: EngineProcess, own_postgres: RunningServer, redis_url: str, tmp_path: Path
) -> None:
    def replica(name: str) -> GatewayProcess:
        (tmp_path / name).mkdir()
        config = write_config(tmp_path / name / "penstock.yaml", [engine.url])
        return GatewayProcess(config, own_postgres.address, redis_url, **AS_SHIPPED, spool_dir=str(tmp_path / "shared"))

    with replica("dead") as dead, replica("living") as living:
        tenant = make_tenant_heard_of(dead, own_postgres.address)
        for gateway in (dead, living):
            assert gateway.http(tenant.key).post(CHAT, chat()).status == 200
        all_closed(own_postgres.address, tenant, 2)
        with stopped(own_postgres):
            for gateway in (dead, living, dead):
                assert gateway.http(tenant.key).post(CHAT, chat()).status == 200
            wait_for(lambda: dead.metrics()["penstock_spool_records"] == 4, "all is in the spool")
            dead.kill()
        wait_for(lambda: len(list((tmp_path / "shared").iterdir())) == 1, "the folder is gone", SOON_S)
        assert_each_once(own_postgres, tenant, engine, 5)
        assert living.metrics()["penstock_spool_adopted_folders_total"] == 1
        dead.start()


@pytest.mark.parametrize("away", [stopped, frozen])
def test_without_postgres_and_spool_nothing_new_is_served_and_nothing_is_left_open(
    away: Callable[[RunningServer], AbstractContextManager[None]],
    lone_gateway: GatewayProcess,
    lone_tenant: Tenant,
    own_postgres: RunningServer,
    engine: EngineProcess,
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with client.stream(CHAT, chat(stream=True, sim=SLOW)) as begun:
        data = begun.data()
        next(data)
        with away(own_postgres):
            with unwritable_spool(lone_gateway.config.with_name("spool")):
                answers = [client.post(CHAT, chat(stream=streamed)) for streamed in (False, True, False)]
                for answer in answers:
                    assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
                    assert int(answer.headers["retry-after"]) > 0
                assert engine.counters()["received"] <= 3, "once it is known, what is refused reaches no engine"
                assert list(data)[-1] == DONE, "who was being answered is answered to the end"
                assert state_of(lone_gateway) == ("unavailable", "failing")
                assert lone_gateway.metrics()["penstock_ledger_available"] == 0
            wait_for(lambda: client.post(CHAT, chat()).status == 200, "the spool takes records again", SOON_S)
            assert state_of(lone_gateway) == ("spooling", "ok")
    wait_for(lambda: lone_gateway.metrics()["penstock_ledger_pending_events"] == 0, "all is in Postgres", SOON_S)
    events = dict(both_events(own_postgres.address, lone_tenant))
    assert all(events.values()), "every OPEN has its CLOSE"
    refused = [row for row in events.values() if row is not None and row["error_code"] == "ledger_unavailable"]
    assert len(refused) <= 1
    assert all((row["status"], row["http_status"], row["cost_pico_usd"]) == ("interrupted", 503, 0) for row in refused)
    assert [row["status"] for row in events.values() if row is not None and row not in refused] == ["ok"] * 3
    wait_for(lambda: state_of(lone_gateway) == ("ok", "ok"), "groups go to Postgres again", SOON_S)


def test_a_full_spool_refuses_until_postgres_is_back(
    engine: EngineProcess, own_postgres: RunningServer, redis_url: str, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, own_postgres.address, redis_url, **AS_SHIPPED, spool_bytes_max=4096) as gateway:
        tenant = make_tenant_heard_of(gateway, own_postgres.address)
        client = gateway.http(tenant.key)
        assert client.post(CHAT, chat()).status == 200
        all_closed(own_postgres.address, tenant, 1)
        with stopped(own_postgres):
            answers = [client.post(CHAT, chat()) for _ in range(20)]
            served = [answer for answer in answers if answer.status == 200]
            assert 3 < len(served) < 20
            assert {answer.error["code"] for answer in answers if answer.status != 200} == {"ledger_unavailable"}
            assert answers[-1].status == 503
            assert sum(path.stat().st_size for path in segments(gateway)) <= 4096
            assert state_of(gateway) == ("unavailable", "full")
        wait_for(lambda: client.post(CHAT, chat()).status == 200, "there is room again", SOON_S)
        wait_for(lambda: gateway.metrics()["penstock_ledger_pending_events"] == 0, "all is in Postgres", SOON_S)
        events = dict(both_events(own_postgres.address, tenant))
        assert all(events.values())
        assert sum(row["status"] == "ok" for row in events.values() if row is not None) == len(served) + 2


def test_a_replica_that_ends_while_postgres_is_away_leaves_its_events_in_the_spool(
    lone_gateway: GatewayProcess, lone_tenant: Tenant, own_postgres: RunningServer, engine: EngineProcess
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with stopped(own_postgres):
        assert client.post(CHAT, chat()).status == 200
        assert lone_gateway.terminate(timeout_s=60) == 0
        events = [line["event"] for line in lone_gateway.log_lines()]
        assert "spool_left" in events
        assert "ledger_unwritten" not in events
    lone_gateway.start()
    assert_each_once(own_postgres, lone_tenant, engine, 2)


def test_a_replica_that_ends_without_postgres_and_spool_tells_what_it_could_not_write(
    lone_gateway: GatewayProcess, lone_tenant: Tenant, own_postgres: RunningServer
) -> None:
    client = lone_gateway.http(lone_tenant.key)
    assert client.post(CHAT, chat()).status == 200
    all_closed(own_postgres.address, lone_tenant, 1)
    with client.stream(CHAT, chat(stream=True, sim=SLOW)) as begun:
        data = begun.data()
        next(data)
        with stopped(own_postgres), unwritable_spool(lone_gateway.config.with_name("spool")):
            assert list(data)[-1] == DONE
            assert lone_gateway.terminate(timeout_s=60) == 0
    unwritten = [line for line in lone_gateway.log_lines() if line["event"] == "ledger_unwritten"]
    assert [line["kind"] for line in unwritten] == ["close"]
    assert begun.request_id in unwritten[0]["record"]


def test_a_spool_that_cannot_be_written_is_told_at_the_start(
    postgres_dsn: str, redis_url: str, engine: EngineProcess, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    (in_the_way := tmp_path / "file").write_text("")
    variables = {"PENSTOCK_POSTGRES_DSN": postgres_dsn, "PENSTOCK_REDIS_URL": redis_url}
    penstock = Penstock(tmp_path, variables | {"PENSTOCK_SPOOL_DIR": str(in_the_way / "spool")})
    outcome = penstock("serve", f"--config={config}", "--port=0", "--metrics-port=0")
    assert outcome.code != 0
    assert "PENSTOCK_SPOOL_DIR" in outcome.err
    assert "Traceback" not in outcome.err
