"""A client that hangs up: the engine stops within a second, what was generated is billed, nothing stays reserved."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.chat import chat, completion
from tests.support.engine import EngineProcess
from tests.support.guarantees import bound_of, measured
from tests.support.http import DONE
from tests.support.ledger import all_closed, opened_events
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import RawConnection
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
BURST = 5000


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before an engine that takes its time."""
    price = {"input": "1", "output": "1"}
    models = {name: {"pool": "gpu", "upstream": "sim", "price": price} for name in ("sim", "quick", "unknown")}
    folder = tmp_path_factory.mktemp("hangup")
    engines = [EngineProcess("sim", tokens_per_second=50, output_tokens=2000)]
    with running_stack(databases, servers, folder, engines=engines, config={"models": models}) as running:
        yield running


@pytest.fixture
def tenant(stack: Stack) -> Tenant:
    """A tenant whose bucket is refilled too slowly to notice."""
    return stack.tenant(tokens_per_minute=1, tokens_burst=BURST)


def assert_engine_stops(stack: Stack, hang_up: Callable[[], None]) -> dict[str, Any]:
    """Hang up, assert that the engine stops in time, and return what it remembers of the request."""
    before = stack.engine.counters()["aborted"]
    hang_up()
    hung_up_s = time.monotonic()
    while True:
        asked_s = time.monotonic() - hung_up_s
        if stack.engine.counters()["aborted"] == before + 1:
            break
        assert asked_s <= bound_of("hang-up"), "the engine still works"
    measured("hang-up", asked_s)
    request: dict[str, Any] = stack.engine.state()["requests"][-1]
    assert request["outcome"] == "aborted"
    return request


def the_event(stack: Stack, tenant: Tenant) -> dict[str, Any]:
    """Return the one event of a tenant, after asserting how it ended and that its reservation is gone."""
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert len(opened_events(stack.dsn, tenant)) == 1
    assert (row["status"], row["coverage"], row["attempts"]) == ("client_closed", "estimated", 1)
    assert row["cost_pico_usd"] == (row["prompt_tokens"] + row["completion_tokens"]) * 1_000_000
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as store:
        wait_for(lambda: not list(store.scan_iter(f"pst:{{{tenant.organization_id.hex}}}:r:*")), "it is settled")
        (key,) = store.scan_iter(f"pst:*:b:{tenant.key_id.hex}:tokens:*")
        level = float(str(store.get(key)).split()[0])
    assert level == pytest.approx(BURST - row["prompt_tokens"] - row["completion_tokens"], abs=2)
    return row


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_hang_up_in_a_stream_stops_the_engine_and_is_billed(stack: Stack, tenant: Tenant, path: str) -> None:
    request = chat(stream=True) if path == CHAT else completion(stream=True, max_tokens=500)
    stream = stack.gateway.http(tenant.key).stream(path, request)
    events = stream.data()
    for _ in range(10):
        next(events)
    generated = assert_engine_stops(stack, stream.hang_up)["generated_tokens"]
    row = the_event(stack, tenant)
    seen = 9 if path == CHAT else 10  # the first event of a chat has the role only
    assert seen <= row["completion_tokens"] <= generated
    assert generated - row["completion_tokens"] <= 25, "half a second of what was on its way"
    assert row["prompt_tokens"] > 0
    assert row["ttft_ms"] is not None


def asked(stack: Stack, tenant: Tenant, request: dict[str, Any]) -> RawConnection:
    """Send a request on a connection of its own and wait until the engine has it."""
    received = stack.engine.counters()["received"]
    connection = stack.gateway.http(tenant.key).asked(CHAT, request)
    stack.engine.wait_for(lambda counters: counters["received"] == received + 1)
    return connection


@pytest.mark.parametrize("how", ["close", "half"])
def test_a_hang_up_before_the_first_token_bills_the_prompt(stack: Stack, tenant: Tenant, how: str) -> None:
    """A client that closes its own side only cannot be told from one that is gone: neither will send again."""
    request = chat("word " * 100, stream=True, sim={"ttft_ms": 60_000})
    connection = asked(stack, tenant, request)
    assert_engine_stops(stack, connection.hang_up if how == "close" else connection.half_close)
    assert how == "close" or connection.read() == b"", "it gets no answer"
    connection.hang_up()
    row = the_event(stack, tenant)
    assert row["prompt_tokens"] > 50
    assert row["completion_tokens"] == 0
    assert row["ttft_ms"] is None


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_hang_up_in_a_whole_answer_bills_the_prompt_and_the_time_that_it_took(
    stack: Stack, tenant: Tenant, how: str
) -> None:
    generated = stack.engine.counters()["generated_tokens"]
    connection = asked(stack, tenant, chat(max_tokens=400))
    stack.engine.wait_for(lambda counters: counters["generated_tokens"] >= generated + 20)
    ways = {"close": connection.hang_up, "reset": connection.reset, "half": connection.half_close}
    assert_engine_stops(stack, ways[how])
    connection.hang_up()
    row = the_event(stack, tenant)
    assert row["prompt_tokens"] > 0
    assert 0 < row["completion_tokens"] <= 400


def test_a_hang_up_in_a_whole_answer_of_many_choices_bills_all_of_them(stack: Stack, tenant: Tenant) -> None:
    generated = stack.engine.counters()["generated_tokens"]
    connection = asked(stack, tenant, chat(n=64, max_tokens=30))
    stack.engine.wait_for(lambda counters: counters["generated_tokens"] >= generated + 64 * 15)
    assert_engine_stops(stack, connection.hang_up)
    row = the_event(stack, tenant)
    assert 64 * 5 < row["completion_tokens"] <= 64 * 30, "0.3 s and more at 30 tokens/s for each"


def test_a_hang_up_in_a_long_whole_answer_bills_more_than_was_expected(stack: Stack, tenant: Tenant) -> None:
    """As fast as the model was seen to be, and up to what the client asked for: not up to what was reserved."""
    client = stack.gateway.http(stack.tenant().key)
    fast = {"tokens_per_second": 5000, "output_tokens": 100_000}
    assert client.post(CHAT, chat(model="quick", max_tokens=1000, sim=fast)).status == 200
    generated = stack.engine.counters()["generated_tokens"]
    connection = asked(stack, tenant, chat(model="quick", max_tokens=100_000, sim=fast))
    stack.engine.wait_for(lambda counters: counters["generated_tokens"] >= generated + 4000)
    assert_engine_stops(stack, connection.hang_up)
    assert the_event(stack, tenant)["completion_tokens"] > 1000


def test_usage_that_was_told_before_the_hang_up_is_used(stack: Stack, tenant: Tenant) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = stack.gateway.http(tenant.key).stream(CHAT, chat(stream=True, stream_options=options))
    events = stream.data()
    told = [json.loads(next(events))["usage"] for _ in range(10)][-1]
    assert_engine_stops(stack, stream.hang_up)
    row = the_event(stack, tenant)
    assert row["prompt_tokens"] == told["prompt_tokens"]
    assert told["completion_tokens"] <= row["completion_tokens"] <= told["completion_tokens"] + 25


def test_an_answer_that_was_cut_short_teaches_nothing(stack: Stack, tenant: Tenant) -> None:
    """Its usage is told, but how long the answer would have been is not."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    for closed in (1, 2):
        stream = stack.gateway.http(tenant.key).stream(CHAT, chat(model="unknown", stream=True, stream_options=options))
        next(stream.data())
        stream.hang_up()
        rows = all_closed(stack.dsn, tenant, closed)
    assert {(row["status"], row["coverage"]) for row in rows} == {("client_closed", "estimated")}
    first, second = opened_events(stack.dsn, tenant)
    for estimate in ("estimate_prompt_tokens", "estimate_completion_tokens"):
        assert first[estimate] == second[estimate]


def test_many_that_hang_up_at_once_have_an_event_each(stack: Stack) -> None:
    tenant = stack.tenant()
    client = stack.gateway.http(tenant.key)
    before = stack.engine.counters()["aborted"]
    streams = [client.stream(CHAT, chat(stream=True)) for _ in range(20)]
    for stream in streams:
        stream.hang_up()
    stack.engine.wait_for(lambda counters: counters["aborted"] == before + 20)
    rows = all_closed(stack.dsn, tenant, 20)
    assert {str(row["event_id"]) for row in rows} == {stream.request_id for stream in streams}
    assert {row["status"] for row in rows} == {"client_closed"}
    assert stack.gateway.metrics()["penstock_requests_in_flight"] == 0


def test_a_client_that_does_not_read_holds_its_engine_back(stack: Stack, tenant: Tenant) -> None:
    """Whatever lies between them is bounded: a hundred thousand chunks do not pile up in the gateway."""
    total = 100_000
    before = stack.engine.counters()["generated_tokens"]
    request = chat(stream=True, sim={"tokens_per_second": 0, "output_tokens": total})
    connection = asked(stack, tenant, request)
    looks: list[int] = []

    def stands_still() -> bool:
        looks.append(stack.engine.counters()["generated_tokens"] - before)
        return len(looks) > 20 and len(set(looks[-20:])) == 1

    wait_for(stands_still, "the engine is held back")
    assert 0 < looks[-1] < total
    generated = assert_engine_stops(stack, connection.hang_up)["generated_tokens"]
    row = the_event(stack, tenant)
    assert 0 < row["completion_tokens"] <= generated


def test_one_hang_up_does_not_disturb_others(stack: Stack) -> None:
    tenant = stack.tenant()
    client = stack.gateway.http(tenant.key)
    with client.stream(CHAT, chat(stream=True, max_tokens=40)) as staying:
        leaving = client.stream(CHAT, chat(stream=True))
        leaving.hang_up()
        assert list(staying.data())[-1] == DONE
    statuses = {str(row["event_id"]): row["status"] for row in all_closed(stack.dsn, tenant, 2)}
    assert statuses == {staying.request_id: "ok", leaving.request_id: "client_closed"}
