"""`/v1/messages` and `/v1/responses` through a replica: the same path, other words.

What the relay makes of their streams is tested byte by byte elsewhere; here is what only the whole can show: limits,
the ledger, hang-ups, and errors in the words of each.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import message, response
from tests.support.engine import EngineProcess
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event
from tests.support.scripted import ScriptedEngine
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http, Stream
    from tests.support.servers import Databases

MESSAGES, COUNT, RESPONSES = "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"
REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {MESSAGES: message, RESPONSES: response}
UPSTREAM = "Vendor/Coder-30B"
MODELS = {
    "coder": {"pool": "gpu", "upstream": UPSTREAM, "aliases": ["claude"], "output": 40},
    "sim": {"pool": "gpu"},
    "elsewhere": {"pool": "tgi", "upstream": "sim"},
}
KEEP_ALIVE_S = 0.2


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before one engine; a second pool is of a kind that lacks these endpoints."""
    engines = [EngineProcess("sim", UPSTREAM, output_tokens=8)]
    with ScriptedEngine() as other:
        pools = {"tgi": {"engine": "tgi", "endpoints": [other.url]}}
        with running_stack(
            databases,
            servers,
            tmp_path_factory.mktemp("dialects"),
            engines=engines,
            config={"models": MODELS, "pools": pools},
            stream_keep_alive_s=KEEP_ALIVE_S,
        ) as running:
            yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key that may do everything."""
    return stack.client()


def last_request(stack: Stack) -> dict[str, Any]:
    """Return what the engine was sent last."""
    request: dict[str, Any] = stack.engine.state()["requests"][-1]
    return request


def events(stream: Stream) -> list[dict[str, Any]]:
    """Return all events of a stream, which must have come to its end."""
    found = [json.loads(data) for data in stream.data()]
    assert not stream.cut
    return found


@pytest.mark.parametrize("prefix", ["/v1", "", "/api/v1"])
@pytest.mark.parametrize("path", REQUESTS)
def test_the_answer_is_the_engines_and_is_in_the_ledger(stack: Stack, client: Http, prefix: str, path: str) -> None:
    before = stack.engine.metrics()
    answer = client.post(path.replace("/v1", prefix, 1), REQUESTS[path](model="claude"))
    assert (answer.status, answer.document["model"]) == (200, "claude")
    sent = last_request(stack)
    assert (sent["path"], sent["body"]["model"]) == (path, UPSTREAM)
    row = closed_event(stack.dsn, answer.request_id)
    after = stack.engine.metrics()
    assert (row["status"], row["coverage"], row["streamed"]) == ("ok", "exact", False)
    assert row["endpoint"] == path.removeprefix("/v1/")
    for column, counter in (
        ("prompt_tokens", "vllm:prompt_tokens_total"),
        ("cached_tokens", "vllm:prefix_cache_hits_total"),
        ("completion_tokens", "vllm:generation_tokens_total"),
    ):
        assert row[column] == after[counter] - before[counter], column


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_ends_as_its_dialect_has_it_and_is_in_the_ledger(stack: Stack, client: Http, path: str) -> None:
    before = stack.engine.metrics()
    with client.stream(path, REQUESTS[path](model="claude", stream=True)) as stream:
        found = events(stream)
    assert found[-1]["type"] == {MESSAGES: "message_stop", RESPONSES: "response.completed"}[path]
    named = [event.get("message") or event.get("response") for event in found]
    assert {one["model"] for one in named if one} == {"claude"}
    row = closed_event(stack.dsn, stream.request_id)
    after = stack.engine.metrics()
    assert (row["status"], row["coverage"], row["streamed"]) == ("ok", "exact", True)
    assert row["completion_tokens"] == after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]


def test_tokens_are_counted_for_nothing(stack: Stack) -> None:
    tenant = stack.tenant(tokens_per_minute=1, tokens_burst=5)
    request = {name: value for name, value in message("word " * 100).items() if name != "max_tokens"}
    answer = stack.gateway.http(tenant.key).post(COUNT, request)
    assert answer.status == 200
    assert answer.document["input_tokens"] > 100
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["endpoint"], row["status"], row["coverage"]) == ("messages.count_tokens", "ok", "exact")
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_pico_usd"]) == (0, 0, 0)


@pytest.mark.parametrize(("path", "name"), [(MESSAGES, "max_tokens"), (RESPONSES, "max_output_tokens")])
def test_the_models_bound_on_output_holds(stack: Stack, client: Http, path: str, name: str) -> None:
    assert client.post(path, REQUESTS[path](model="coder", **{name: 5000})).status == 200
    assert last_request(stack)["body"][name] == 40


@pytest.mark.parametrize("path", REQUESTS)
def test_a_hang_up_stops_the_engine_and_is_billed(stack: Stack, path: str) -> None:
    tenant = stack.tenant()
    slow = {"tokens_per_second": 50, "output_tokens": 2000}
    aborted = stack.engine.counters()["aborted"]
    request = REQUESTS[path](stream=True, sim=slow) | ({"max_tokens": 2000} if path == MESSAGES else {})
    with stack.gateway.http(tenant.key).stream(path, request) as stream:
        for data in stream.data():
            if "delta" in json.loads(data):
                break
    stack.engine.wait_for(lambda now: now["aborted"] == aborted + 1)
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["coverage"]) == ("client_closed", "estimated")
    assert 1 <= row["completion_tokens"] <= 100
    assert row["prompt_tokens"] > 0


@pytest.mark.parametrize("path", REQUESTS)
def test_while_the_engine_thinks_signs_of_life_come_in_the_dialect(client: Http, path: str) -> None:
    sign = {MESSAGES: 'data: {"type":"ping"}', RESPONSES: ": keep-alive"}[path]
    slow = {"ttft_ms": 4 * KEEP_ALIVE_S * 1000}
    with client.stream(path, REQUESTS[path](stream=True, sim=slow)) as stream:
        lines = list(stream.lines())
    assert lines.index(sign) < next(at for at, line in enumerate(lines) if "model" in line)
    assert DONE not in lines[-1]


def test_errors_of_messages_are_anthropics(stack: Stack, client: Http) -> None:
    limited = stack.client(requests_per_minute=1, requests_burst=1)
    assert limited.post(MESSAGES, message()).status == 200
    for answer, status, kind in (
        (stack.gateway.http("nonsense").post(MESSAGES, message()), 401, "authentication_error"),
        (stack.gateway.http("nonsense").post(COUNT, message()), 401, "authentication_error"),
        (client.post(MESSAGES, message(model="unknown")), 404, "not_found_error"),
        (client.post(MESSAGES, b"{"), 400, "invalid_request_error"),
        (client.post(MESSAGES, message(sim={"status": 400})), 400, "invalid_request_error"),
        (client.post(MESSAGES, message(sim={"status": 500})), 502, "api_error"),
        (limited.post(MESSAGES, message()), 429, "rate_limit_error"),
    ):
        assert answer.status == status, answer
        assert answer.document["type"] == "error"
        assert answer.error["type"] == kind
        assert answer.error["message"]
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert int(limited.post(MESSAGES, message()).headers["retry-after"]) > 0


def test_a_prompt_that_is_too_long_is_called_so(client: Http) -> None:
    answer = client.post(MESSAGES, message("word " * 300_000))
    assert answer.status == 400
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert answer.error["message"].startswith("prompt is too long")


def test_errors_of_responses_are_openais(stack: Stack, client: Http) -> None:
    for answer, status, code in (
        (stack.gateway.http("nonsense").post(RESPONSES, response()), 401, "invalid_api_key"),
        (client.post(RESPONSES, response(sim={"status": 500})), 502, "upstream_error"),
    ):
        assert (answer.status, answer.error["code"]) == (status, code)
        assert list(answer.error) == ["message", "type", "param", "code"]


def test_a_model_that_is_called_as_an_endpoint_is_no_endpoint(client: Http) -> None:
    answer = client.get("/v1/models/messages")
    assert (answer.status, list(answer.document), answer.error["code"]) == (404, ["error"], "model_not_found")


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_that_breaks_off_says_so_in_its_dialect(stack: Stack, path: str) -> None:
    tenant = stack.tenant()
    request = REQUESTS[path](stream=True, sim={"abort_after_chunks": 5})
    with stack.gateway.http(tenant.key).stream(path, request) as stream:
        found = [json.loads(data) for data in stream.data()]
    assert stream.cut
    assert (found[-1]["type"], found[-1]["error"]["code"]) == ("error", "upstream_error")
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")


@pytest.mark.parametrize(
    ("name", "value"), [("background", True), ("previous_response_id", "resp_1"), ("conversation", {"id": "c"})]
)
def test_what_needs_an_engine_that_remembers_is_refused(client: Http, name: str, value: Any) -> None:
    answer = client.post(RESPONSES, response(**{name: value}))
    assert (answer.status, answer.error["param"]) == (400, name)


def test_responses_are_not_stored(stack: Stack, client: Http) -> None:
    assert client.post(RESPONSES, response(store=True, background=False, previous_response_id=None)).status == 200
    body = last_request(stack)["body"]
    assert body["store"] is False
    assert body.keys().isdisjoint({"background", "previous_response_id"})


@pytest.mark.parametrize("path", [MESSAGES, COUNT, RESPONSES])
def test_engines_that_lack_the_endpoint_are_not_asked(client: Http, path: str) -> None:
    request = response(model="elsewhere") if path == RESPONSES else message(model="elsewhere")
    answer = client.post(path, request)
    assert (answer.status, answer.error["code"]) == (400, "endpoint_not_served")


def test_a_session_of_claude_code_is_one_session(stack: Stack, client: Http) -> None:
    answer = client.post(f"{MESSAGES}?beta=true", message(), {"x-claude-code-session-id": "abc"})
    assert closed_event(stack.dsn, answer.request_id)["session"] == "abc"
