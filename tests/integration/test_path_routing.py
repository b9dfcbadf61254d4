"""Which engine serves, what happens when one cannot, and what a client sees when all cannot."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat, finished
from tests.support.engine import EngineProcess
from tests.support.ledger import all_closed, closed_event
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
MODELS = {
    "sim": {"pool": "gpu"},
    "unserved": {"pool": "gpu"},
    "narrow": {"pool": "narrow", "upstream": "sim"},
    "backed": {"pool": "gone", "fallbacks": ["spare"], "upstream": "sim"},
}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica, two engines in the pool `gpu`, and one behind two other pools."""
    with EngineProcess("sim") as spare:
        pools: dict[str, Any] = {
            "spare": {"engine": "vllm", "endpoints": [spare.url]},
            "narrow": {"engine": "vllm", "endpoints": [spare.url], "concurrency": 1},
            "gone": {"engine": "openai", "endpoints": ["http://127.0.0.1:9"]},
        }
        with running_stack(
            databases,
            servers,
            tmp_path_factory.mktemp("routing"),
            engines=[EngineProcess("sim"), EngineProcess("sim")],
            config={"models": MODELS, "pools": pools, "pool": {"health": {"interval_s": 0.2}}},
        ) as running:
            yield running


@pytest.fixture
def engines(stack: Stack) -> Iterator[tuple[EngineProcess, EngineProcess]]:
    """The two engines of the pool; afterwards both run again as they were started, and the replica trusts them."""
    first, second = stack.engines
    yield first, second
    client = stack.client()
    for engine in stack.engines:
        if not engine.running:
            engine.start()
        engine.control(status=None, retry_after=None)
    for engine in stack.engines:
        before = served(engine)
        wait_for(lambda: client.post(CHAT, chat(max_tokens=1)) and served(engine) > before, "both serve again")  # noqa: B023 - used up within the turn of the loop


@pytest.fixture
def client(stack: Stack) -> Http:
    """A client with a key of the test's own."""
    return stack.client()


def up(stack: Stack, engine: EngineProcess) -> bool:
    """Whether the replica takes an engine of the pool `gpu` for healthy."""
    return stack.gateway.metrics()[f'penstock_engine_up{{engine="{engine.url}",pool="gpu"}}'] == 1


def served(engine: EngineProcess) -> int:
    """How many requests an engine has finished."""
    return int(engine.counters()["finished"])


def test_streams_spread_over_the_engines(
    stack: Stack, client: Http, engines: tuple[EngineProcess, EngineProcess]
) -> None:
    slow = chat(stream=True, sim={"tokens_per_second": 5, "output_tokens": 1000})
    with ExitStack() as open_streams:
        for count in range(1, 5):
            for _ in range(2):
                open_streams.enter_context(client.stream(CHAT, slow))
            assert [engine.counters()["running"] for engine in engines] == [count, count]
    for engine in engines:
        engine.wait_for(lambda counters: counters["running"] == 0)


def test_equals_take_turns(client: Http, engines: tuple[EngineProcess, EngineProcess]) -> None:
    before = [served(engine) for engine in engines]
    for _ in range(10):
        assert client.post(CHAT, chat()).status == 200
    assert [served(engine) - was for engine, was in zip(engines, before, strict=True)] == [5, 5]


@pytest.mark.parametrize("status", [500, 502, 503, 429, 401, 404])
@pytest.mark.parametrize("streamed", [False, True])
def test_what_one_engine_fails_at_another_serves(
    stack: Stack, engines: tuple[EngineProcess, EngineProcess], status: int, *, streamed: bool
) -> None:
    failing, healthy = engines
    failing.control(status=status)
    tenant = stack.tenant()
    client = stack.gateway.http(tenant.key)
    before, ids = failing.counters()["received"], []
    while failing.counters()["received"] == before:
        ids.append(finished(client, CHAT, chat(stream=streamed)))
    rows = all_closed(stack.dsn, tenant, len(ids))
    assert {row["engine"] for row in rows} == {healthy.url}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["coverage"] for row in rows} == {"exact"}
    assert [row["attempts"] for row in rows] == [1] * (len(ids) - 1) + [2]


def test_an_engine_that_is_down_is_left_out_and_comes_back(
    stack: Stack, client: Http, engines: tuple[EngineProcess, EngineProcess]
) -> None:
    first, second = engines
    first.kill()
    assert [client.post(CHAT, chat()).status for _ in range(4)] == [200] * 4
    wait_for(lambda: not up(stack, first), "the probe sees that it is down")
    row = closed_event(stack.dsn, client.post(CHAT, chat()).request_id)
    assert (row["engine"], row["attempts"]) == (second.url, 1)
    first.start()
    wait_for(lambda: up(stack, first), "the probe sees that it is back")
    for _ in range(2):
        assert client.post(CHAT, chat()).status == 200
    assert served(first) >= 1


def test_with_all_engines_down_the_client_is_told_to_come_back(
    stack: Stack, engines: tuple[EngineProcess, EngineProcess]
) -> None:
    for engine in engines:
        engine.kill()
    tenant = stack.tenant()
    answer = stack.gateway.http(tenant.key).post(CHAT, chat())
    assert (answer.status, answer.error["type"]) == (502, "server_error")
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["attempts"], row["http_status"]) == ("upstream_error", 2, 502)
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_pico_usd"]) == (0, 0, 0)


def test_engines_that_are_busy_are_told_with_their_own_time(
    stack: Stack, engines: tuple[EngineProcess, EngineProcess]
) -> None:
    for engine in engines:
        engine.control(status=429, retry_after=2)
    tenant = stack.tenant()
    answer = stack.gateway.http(tenant.key).post(CHAT, chat())
    assert_refused(answer, 429, "engine_busy")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "2000")
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["attempts"], row["completion_tokens"]) == ("upstream_error", 2, 0)


def test_engines_that_fail_are_a_bad_gateway(client: Http, engines: tuple[EngineProcess, EngineProcess]) -> None:
    for engine in engines:
        engine.control(status=500)
    answer = client.post(CHAT, chat())
    assert (answer.status, answer.error["code"], answer.error["type"]) == (502, "upstream_error", "server_error")
    assert all(engine.url not in answer.body.decode() for engine in engines)


def test_a_model_that_no_engine_knows_is_not_the_clients_fault(client: Http) -> None:
    assert client.post(CHAT, chat(model="unserved")).status == 502


def test_a_full_pool_says_so_at_once(stack: Stack, client: Http) -> None:
    with client.stream(CHAT, chat(model="narrow", stream=True, sim={"tokens_per_second": 5})) as stream:
        assert stream.status == 200
        answer = client.post(CHAT, chat(model="narrow"))
        assert (answer.status, answer.error["code"]) == (503, "no_engine")
        assert answer.headers["retry-after"]
    row = closed_event(stack.dsn, answer.request_id)
    assert (row["engine"], row["attempts"], row["cost_pico_usd"]) == (None, 0, 0)
    wait_for(lambda: client.post(CHAT, chat(model="narrow")).status == 200, "there is room again")


def test_a_fallback_serves_and_is_named(stack: Stack, client: Http) -> None:
    answer = client.post(CHAT, chat(model="backed", max_tokens=5))
    assert (answer.status, answer.document["model"]) == (200, "backed")
    row = closed_event(stack.dsn, answer.request_id)
    assert (row["attempts"], row["model"], row["status"]) == (2, "backed", "ok")
