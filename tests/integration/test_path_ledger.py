"""What the ledger says of a request: one event, with the engine's own tokens, exact money and how it ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from gateway.units import opened_at
from tests.support.chat import ENDPOINTS, chat, completion, finished
from tests.support.engine import EngineProcess
from tests.support.ledger import all_closed, closed_event, cost_at, opened_events
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

PICO = 10**12
# Rates that no float holds, in USD per million tokens.
PRICE = {
    "input": "0.200003",
    "cached_input": "0.020007",
    "output": "0.800009",
    "reasoning": "1.7",
    "request": "0.01",
}
MODELS = {
    "coder": {"pool": "gpu", "upstream": "sim", "aliases": ["default"], "price": PRICE},
    "free": {"pool": "gpu", "upstream": "sim"},
}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before an engine whose answers have eleven tokens."""
    engines, folder = [EngineProcess("sim", output_tokens=11)], tmp_path_factory.mktemp("ledger")
    with running_stack(databases, servers, folder, engines=engines, config={"models": MODELS}) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


@pytest.mark.parametrize("streamed", [False, True])
def test_an_event_says_what_the_engine_counted_and_exactly_what_it_costs(stack: Stack, *, streamed: bool) -> None:
    tenant = stack.tenant()
    before = stack.engine.metrics()
    request = chat("a question", model="default", stream=streamed)
    headers = {"x-session-id": "ses_1"}
    request_id = finished(stack.gateway.http(tenant.key), "/v1/chat/completions", request, headers)
    (row,) = all_closed(stack.dsn, tenant, 1)
    after = stack.engine.metrics()
    assert row["event_id"] == UUID(request_id)
    assert row["opened_at"] == opened_at(UUID(request_id))
    assert row["prompt_tokens"] == after["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"]
    generated = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
    assert row["completion_tokens"] == generated == 11
    assert row["cost_pico_usd"] == cost_at(PRICE, row)
    expected = {
        "organization_id": tenant.organization_id,
        "team_id": tenant.team_id,
        "user_id": tenant.user_id,
        "key_id": tenant.key_id,
        "model": "coder",
        "served_model": "coder",
        "engine": stack.engine.url,
        "endpoint": "chat.completions",
        "session": "ses_1",
        "streamed": streamed,
        "attempts": 1,
        "status": "ok",
        "coverage": "exact",
        "http_status": 200,
        "error_code": None,
    }
    assert expected == {name: row[name] for name in expected}
    assert row["price_id"] is not None
    assert row["ttft_ms"] is not None
    assert 0 <= row["ttft_ms"] <= row["duration_ms"]


def test_the_open_record_says_what_was_expected(stack: Stack) -> None:
    tenant = stack.tenant()
    request_id = finished(stack.gateway.http(tenant.key), "/v1/chat/completions", chat(model="coder", max_tokens=9))
    (row,) = all_closed(stack.dsn, tenant, 1)
    (opened,) = opened_events(stack.dsn, tenant)
    assert opened["event_id"] == UUID(request_id)
    assert opened["estimate_completion_tokens"] == 9
    assert opened["estimate_prompt_tokens"] > 0
    assert opened["boot_id"] == row["boot_id"]
    assert (opened["deadline_at"] - opened["opened_at"]).total_seconds() == 1800


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_has_its_name_in_the_ledger(stack: Stack, client: Http, endpoint: str) -> None:
    row = closed_event(stack.dsn, finished(client, f"/v1/{endpoint}", ENDPOINTS[endpoint](model="coder")))
    assert row["endpoint"] == endpoint.replace("/", ".")
    assert row["cost_pico_usd"] == cost_at(PRICE, row)
    assert (row["completion_tokens"] == 0) == (endpoint == "embeddings")


def test_cached_tokens_are_told_and_cost_their_own_rate(stack: Stack, client: Http) -> None:
    request = chat("a long story, told twice: " + "word " * 400, model="coder")
    first = closed_event(stack.dsn, finished(client, "/v1/chat/completions", request))
    second = closed_event(stack.dsn, finished(client, "/v1/chat/completions", {**request, "stream": True}))
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] > 400
    assert second["prompt_tokens"] == first["prompt_tokens"]
    assert second["cost_pico_usd"] == cost_at(PRICE, second) < first["cost_pico_usd"] == cost_at(PRICE, first)


def test_choices_and_prompts_add_up(stack: Stack, client: Http) -> None:
    three = closed_event(stack.dsn, finished(client, "/v1/chat/completions", chat(model="coder", n=3, stream=True)))
    assert three["completion_tokens"] == 33
    six = closed_event(stack.dsn, finished(client, "/v1/completions", completion(["a", "b"], model="coder", n=3)))
    assert six["completion_tokens"] == 66


def test_a_model_without_a_price_costs_nothing_and_is_counted(stack: Stack, client: Http) -> None:
    row = closed_event(stack.dsn, finished(client, "/v1/chat/completions", chat(model="free")))
    assert (row["cost_pico_usd"], row["price_id"], row["completion_tokens"]) == (0, None, 11)


@pytest.mark.parametrize(
    ("headers", "fields", "session"),
    [
        ({"x-session-id": "ses_a", "x-session-affinity": "b"}, {"prompt_cache_key": "c"}, "ses_a"),
        ({"x-session-affinity": "b"}, {"prompt_cache_key": "c"}, "b"),
        ({}, {"prompt_cache_key": "c"}, "c"),
        ({}, {"prompt_cache_key": 5}, None),
        ({}, {}, None),
        ({"x-session-id": "s" * 1000}, {}, "s" * 128),
        ({"x-session-id": "a\tb\xe9"}, {}, "ab"),
        ({}, {"prompt_cache_key": "a\x00\nb\u2028"}, "ab"),
    ],
)
def test_the_session_is_kept(
    stack: Stack, client: Http, headers: dict[str, str], fields: dict[str, Any], session: str | None
) -> None:
    request_id = finished(client, "/v1/chat/completions", chat(model="free", **fields), headers)
    assert closed_event(stack.dsn, request_id)["session"] == session


def test_metrics_count_what_the_ledger_does(stack: Stack) -> None:
    tenant = stack.tenant()
    client = stack.gateway.http(tenant.key)
    for streamed in (False, True):
        finished(client, "/v1/chat/completions", chat(model="coder", stream=streamed))
    rows = all_closed(stack.dsn, tenant, 2)
    metrics = stack.gateway.metrics()
    labels = f'model="coder",organization="{tenant.organization}",team="{tenant.team}"'
    prompt = sum(row["prompt_tokens"] for row in rows)
    assert metrics[f'penstock_tokens_total{{kind="prompt",{labels}}}'] == prompt
    assert metrics[f'penstock_tokens_total{{kind="completion",{labels}}}'] == 22
    cost_usd = sum(row["cost_pico_usd"] for row in rows) / PICO
    assert metrics[f"penstock_cost_usd_total{{{labels}}}"] == pytest.approx(float(cost_usd))
    ended = f'endpoint="chat.completions",model="coder",organization="{tenant.organization}",status="ok"'
    assert metrics[f'penstock_requests_total{{{ended},team="{tenant.team}"}}'] == 2


def test_the_log_has_one_line_for_each_request(stack: Stack, client: Http) -> None:
    request_id = finished(client, "/v1/chat/completions", chat("a most secret prompt", model="coder"))
    closed_event(stack.dsn, request_id)
    (line,) = stack.gateway.log_of(request_id)
    assert (line["event"], line["status"], line["completion_tokens"]) == ("request", "ok", 11)
    text = json.dumps(stack.gateway.log_lines())
    assert "a most secret prompt" not in text
    assert client.key is not None
    assert client.key not in text
    assert client.key.rpartition("_")[2] not in text
