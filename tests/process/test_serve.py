"""`penstock serve` as a process: how it starts, what stops it from starting, how it drains and ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.dev.files import free_port
from tests.support.chat import chat
from tests.support.command import Penstock
from tests.support.gateway import GatewayProcess, write_config
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import EngineProcess
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
START_S_MAX = 60.0


def serve(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `penstock serve` to its end, which must come by itself."""
    environment = {"PATH": "/usr/bin:/bin", **{f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}}
    return subprocess.run(
        [sys.executable, "-m", "gateway", "serve", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )


def test_sigterm_lets_a_stream_finish_then_exits_0_with_a_whole_ledger(
    gateway: GatewayProcess, tenant: Tenant, postgres_dsn: str
) -> None:
    client = gateway.http(tenant.key)
    slow = {"output_tokens": 40, "tokens_per_second": 40}
    with client.stream(CHAT, chat(stream=True, sim=slow)) as stream:
        events = stream.data()
        next(events)
        with client.raw() as other:
            other.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert other.answer().status == 200
            gateway.signal(signal.SIGTERM)
            rest = list(events)
        assert rest[-1] == DONE
        assert not stream.cut
        request_id = stream.request_id
    assert gateway.wait() == 0
    row = closed_event(postgres_dsn, request_id)
    assert (row["status"], row["coverage"], row["completion_tokens"]) == ("ok", "exact", 40)
    assert gateway.log_lines()[-1]["event"] == "stopped"


def test_a_draining_replica_answers_new_connections_until_its_last_stream_has_ended(
    gateway: GatewayProcess, tenant: Tenant
) -> None:
    client = gateway.http(tenant.key)
    with (
        client.raw() as kept,
        client.raw() as fresh,
        client.stream(CHAT, chat(stream=True, sim={"output_tokens": 100, "tokens_per_second": 25})) as stream,
    ):
        kept.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert kept.answer().status == 200
        events = stream.data()
        next(events)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: [line for line in gateway.log_lines() if line["event"] == "draining"], "it drains")
        for _ in range(25):  # a second of it: uvicorn looks ten times a second whether it may stop
            next(events)
        ready = client.get("/readyz")
        assert (ready.status, ready.document["status"]) == (503, "draining")
        assert client.get("/livez").status == 200
        refused = client.post(CHAT, chat())
        assert (refused.status, refused.error["code"]) == (503, "draining")
        assert int(refused.headers["retry-after-ms"]) > 0
        assert refused.headers.get("x-should-retry") != "false"
        assert refused.headers["connection"] == "close", "who tries again finds another replica"
        assert client.post("/v1/embeddings", {"model": "sim", "input": "x"}).error["code"] == "draining"
        assert kept.closed()
        fresh.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert fresh.answer().status == 503, "opened before the signal, asked after it"
        assert fresh.closed()
        assert gateway.metrics()["penstock_requests_in_flight"] == 1, "all this while the stream goes on"
        assert list(events)[-1] == DONE
        assert not stream.cut
    assert gateway.wait() == 0


def test_a_second_signal_cuts_streams_and_closes_their_events(
    gateway: GatewayProcess, tenant: Tenant, postgres_dsn: str
) -> None:
    endless = chat(stream=True, sim={"output_tokens": 6000, "tokens_per_second": 20})
    with gateway.http(tenant.key).stream(CHAT, endless) as stream:
        events = stream.data()
        next(events)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: [line for line in gateway.log_lines() if line["event"] == "draining"], "it drains")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert DONE not in list(events)
    (row,) = all_closed(postgres_dsn, tenant, 1)
    assert (row["status"], row["coverage"]) == ("interrupted", "estimated")


def test_a_second_signal_is_told_to_who_has_seen_nothing_yet(
    gateway: GatewayProcess, engine: EngineProcess, tenant: Tenant, postgres_dsn: str
) -> None:
    slow = json.dumps(chat(sim={"ttft_ms": 60_000})).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n"
    with gateway.http(tenant.key).raw() as asking:
        asking.send(f"{head}content-length: {len(slow)}\r\n\r\n".encode() + slow)
        engine.wait_for(lambda counters: counters["running"] == 1)
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: [line for line in gateway.log_lines() if line["event"] == "draining"], "it drains")
        gateway.signal(signal.SIGTERM)
        answer = asking.answer()
        assert (answer.status, answer.error["code"]) == (503, "draining")
        assert asking.closed()
    assert gateway.wait() == 0
    assert "Traceback" not in gateway.log.read_text()
    (row,) = all_closed(postgres_dsn, tenant, 1)
    assert (row["status"], row["coverage"]) == ("interrupted", "estimated")


def test_a_request_whose_body_is_still_coming_at_the_signal_is_served(gateway: GatewayProcess, tenant: Tenant) -> None:
    client = gateway.http(tenant.key)
    body = json.dumps(chat()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\nexpect: 100-continue\r\n"
    with client.raw() as asking:
        asking.send(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        assert b" 100 " in asking.read(), "its body is waited for"
        gateway.signal(signal.SIGTERM)
        wait_for(lambda: client.get("/readyz").status == 503, "it drains")
        asking.send(body)
        answer = asking.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert gateway.wait() == 0


def test_the_end_of_the_drain_cuts_streams_and_closes_their_events(
    engine: EngineProcess, postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    tenant = make_tenant(postgres_dsn)
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, redis_url, drain_timeout_s=1) as gateway:
        endless = chat(stream=True, sim={"output_tokens": 6000, "tokens_per_second": 20})
        with gateway.http(tenant.key).stream(CHAT, endless) as stream:
            events = stream.data()
            next(events)
            gateway.signal(signal.SIGTERM)
            assert DONE not in list(events)
            assert stream.cut
        assert gateway.wait() == 0
        rows = all_closed(postgres_dsn, tenant, 1)
        assert (rows[0]["status"], rows[0]["coverage"]) == ("interrupted", "estimated")
        assert rows[0]["completion_tokens"] > 0
        engine.wait_for(lambda counters: counters["running"] == 0)


def test_a_taken_port_is_told(gateway: GatewayProcess, postgres_dsn: str, redis_url: str) -> None:
    ended = serve(
        f"--config={gateway.config}", f"--port={gateway.port}", "--metrics-port=0",
        postgres_dsn=postgres_dsn, redis_url=redis_url,
    )  # fmt: skip
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{gateway.port}" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("pools: {gpu: {engine: vllm, endpoints: [http://127.0.0.1:1]}}\nmodels: {m: {pool: gpX}}\n", ":2:"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(text: str | None, said: str, tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    if text is not None:
        config.write_text(text)
    ended = serve(f"--config={config}", postgres_dsn="postgresql://127.0.0.1:1/x", redis_url="redis://127.0.0.1:1")
    assert ended.returncode == 1
    assert said in ended.stderr
    assert str(config) in ended.stderr


def test_missing_addresses_are_told(tmp_path: Path, engine: EngineProcess) -> None:
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    ended = serve(f"--config={config}")
    assert ended.returncode == 1
    assert "PENSTOCK_POSTGRES_DSN" in ended.stderr


def test_a_database_that_is_not_migrated_is_told(
    empty_postgres_dsn: str, redis_url: str, engine: EngineProcess, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    ended = serve(f"--config={config}", postgres_dsn=empty_postgres_dsn, redis_url=redis_url)
    assert ended.returncode == 1
    assert "penstock migrate" in ended.stderr


def test_a_replica_that_waits_for_postgres_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path / "penstock.yaml", ["http://127.0.0.1:1"])
    variables = {
        "PENSTOCK_POSTGRES_DSN": f"postgresql://gateway:hush@127.0.0.1:{free_port()}/penstock",
        "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1",
    }
    argv = [sys.executable, "-m", "gateway", "serve", f"--config={config}", "--port=0", "--metrics-port=0"]
    with subprocess.Popen(
        argv, env=Penstock(tmp_path, variables).environment, stdout=subprocess.PIPE, text=True
    ) as replica:
        assert replica.stdout is not None
        try:
            said = next(line for line in replica.stdout if "postgres_away" in line)
        finally:
            replica.kill()
    assert "hush" not in said
    assert json.loads(said)["waiting_s"] > 0


def test_a_changed_file_is_picked_up_and_an_invalid_one_refused(
    gateway: GatewayProcess, tenant: Tenant, engine: EngineProcess
) -> None:
    client = gateway.http(tenant.key)
    model = {"pool": "gpu", "upstream": "sim"}

    def names() -> list[str]:
        return [entry["id"] for entry in client.get("/v1/models").document["data"]]

    assert names() == ["sim"]
    write_config(gateway.config, [engine.url], models={"sim": model, "added": model})
    wait_for(lambda: names() == ["sim", "added"], "the new model is there")
    assert client.post(CHAT, chat(model="added")).document["model"] == "added"
    gateway.config.write_text("pools: [not, a, mapping]\n")
    wait_for(lambda: gateway.metrics()["penstock_config_valid"] == 0, "the invalid file was seen")
    assert names() == ["sim", "added"]
    assert client.post(CHAT, chat(model="added")).status == 200
    write_config(gateway.config, [engine.url], models={"sim": model})
    wait_for(lambda: names() == ["sim"], "a valid file counts again")
    assert gateway.metrics()["penstock_config_valid"] == 1


def test_one_log_line_a_request_without_prompt_and_key(gateway: GatewayProcess, tenant: Tenant) -> None:
    client = gateway.http(tenant.key)
    secret_text = "the colour of the bikeshed"
    answer = client.post(CHAT, chat(secret_text))
    assert answer.status == 200
    refused = client.post(CHAT, {"model": "no-such", "messages": [{"role": "user", "content": secret_text}]})
    assert refused.status == 404
    lines = gateway.log_of(answer.request_id)
    assert [line["event"] for line in lines] == ["request"]
    expected = {"organization": tenant.organization, "team": tenant.team, "key": tenant.key_public_id, "status": "ok"}
    assert expected.items() <= lines[0].items()
    assert [line["event"] for line in gateway.log_of(refused.request_id)] == ["refused"]
    written = gateway.log.read_text()
    assert secret_text not in written
    assert tenant.key not in written
    assert tenant.key.partition("_")[2] not in written


def test_metrics_tell_tokens_and_cost_by_tenant(gateway: GatewayProcess, tenant: Tenant) -> None:
    client = gateway.http(tenant.key)
    answer = client.post(CHAT, chat(sim={"output_tokens": 7}))
    with client.stream(CHAT, chat(stream=True, sim={"output_tokens": 9})) as stream:
        stream.chunks()
    labels = f'model="sim",organization="{tenant.organization}",team="{tenant.team}"'
    usage = answer.document["usage"]
    metrics = gateway.metrics()
    assert metrics[f'penstock_tokens_total{{kind="completion",{labels}}}'] == 16
    assert metrics[f'penstock_tokens_total{{kind="prompt",{labels}}}'] == 2 * usage["prompt_tokens"]
    assert metrics[f"penstock_cost_usd_total{{{labels}}}"] > 0
    by_status = f'model="sim",organization="{tenant.organization}",status="ok",team="{tenant.team}"'
    assert metrics[f'penstock_requests_total{{endpoint="chat.completions",{by_status}}}'] == 2
    for name in (
        "penstock_time_to_first_token_seconds_count",
        "penstock_time_per_output_token_seconds_count",
        "penstock_ledger_commit_seconds_count",
    ):
        assert metrics[name] >= 1, name
    wait_for(lambda: gateway.metrics()["penstock_event_loop_lag_seconds_count"] > 0, "the loop's lag is observed")
    assert metrics["penstock_request_duration_seconds_count"] == 2
    assert metrics["penstock_limiter_decisions_total"] == 2
    assert {"penstock_ledger_lag_seconds", "penstock_ledger_pending_events", "penstock_engine_up"} <= metrics.keys()
