"""Budgets on the path: refusals that no client repeats, streams that are stopped, and what the ledger says after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.domain.principal import Level
from tests.support.chat import chat, completion, message, response
from tests.support.ledger import all_closed, opened_events
from tests.support.redis_setups import looking
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
OUTPUT_PICO = 800_000
"""What a token of an answer costs."""

TOKENS_PAID_FOR = 40
LONG: dict[str, Any] = {"sim": {"output_tokens": 4000, "tokens_per_second": 400}}
REQUESTS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "chat": (CHAT, chat),
    "completions": ("/v1/completions", completion),
    "messages": ("/v1/messages", message),
    "responses": ("/v1/responses", response),
}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("budgets"), replicas=2) as running:
        yield running


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_spent_budget_is_told_once_and_nothing_is_opened(stack: Stack, kind: str) -> None:
    tenant = stack.tenant(budget_month_pico_usd=1)
    path, request = REQUESTS[kind]
    for stream in (False, True):
        answer = stack.gateway.http(tenant.key).post(path, request(stream=stream))
        assert "retry-after" not in answer.headers
        if kind == "messages":
            assert (answer.status, answer.error["type"]) == (402, "billing_error")
            assert answer.error["code"] == "budget_exceeded"
            assert answer.headers["x-should-retry"] == "false"
        else:
            assert_refused(answer, 402, "budget_exceeded")
        assert "month" in answer.error["message"]
    assert opened_events(stack.dsn, tenant) == []


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_stream_is_stopped_when_its_budget_is_spent(stack: Stack, kind: str) -> None:
    """With a proper end in its dialect, then the reason; the engine is stopped, and no more billed than there was."""
    path, request = REQUESTS[kind]
    budget = TOKENS_PAID_FOR * OUTPUT_PICO
    tenant = stack.tenant(limits={Level.TEAM: {"budget_day_pico_usd": budget, "budget_stops_streams": True}})
    asked = request(stream=True, **LONG)
    asked["max_output_tokens" if kind == "responses" else "max_tokens"] = 4000
    aborted = stack.engine.counters()["aborted"]
    with stack.gateway.http(tenant.key).stream(path, asked) as stream:
        assert stream.status == 200
        events = stream.chunks()
    assert not stream.cut, "a cut invites to try again"
    text = json.dumps(events)
    assert {"chat": '"finish_reason": "length"', "completions": '"finish_reason": "length"'}.get(kind, "") in text
    assert {"messages": '"stop_reason": "max_tokens"', "responses": '"response.incomplete"'}.get(kind, "") in text
    assert events[-1]["error"]["code"] == "budget_exceeded"
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["coverage"], row["error_code"]) == ("interrupted", "estimated", "budget_exceeded")
    assert 0 < row["completion_tokens"] <= TOKENS_PAID_FOR
    assert 0 < row["cost_pico_usd"] <= budget
    wait_for(lambda: stack.engine.counters()["aborted"] > aborted, "the engine is hung up on")


def test_whole_answers_are_not_begun_where_they_could_not_be_paid(stack: Stack) -> None:
    """Nobody could stop them: all that they may cost must be there."""
    limits = {"budget_day_pico_usd": TOKENS_PAID_FOR * OUTPUT_PICO, "budget_stops_streams": True}
    client = stack.client(limits={Level.TEAM: limits})
    assert_refused(client.post(CHAT, chat(max_tokens=4000)), 402, "budget_exceeded")
    assert client.post(CHAT, chat(max_tokens=10, ignore_eos=True)).status == 200


def test_a_budget_outlives_redis_and_holds_on_every_replica(stack: Stack) -> None:
    """Redis forgets; what was spent is summed up again before the first request is let through."""
    tenant = stack.tenant(budget_week_pico_usd=TOKENS_PAID_FOR * OUTPUT_PICO)
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]
    asked = chat(max_tokens=25, ignore_eos=True)
    assert clients[0].post(CHAT, asked).status == 200
    all_closed(stack.dsn, tenant, 1)
    for client in clients:
        with looking(stack.redis_url) as redis:
            redis.flushall()
        assert_refused(client.post(CHAT, asked), 402, "budget_exceeded")
    assert len(opened_events(stack.dsn, tenant)) == 1


def test_what_running_requests_hold_is_no_spent_budget_after_redis_was_emptied(stack: Stack) -> None:
    """402 ends an agent's work; and what the request did not use is back soon after its end, not after a minute."""
    tenant = stack.tenant(budget_day_pico_usd=100 * OUTPUT_PICO, output_tokens_max=64)
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]
    slow = {"output_tokens": 64, "tokens_per_second": 1, "ttft_ms": 1}
    with clients[0].stream(CHAT, chat(stream=True, sim=slow)) as running:
        assert running.status == 200
        wait_for(lambda: opened_events(stack.dsn, tenant), "the request is in the ledger")
        assert clients[1].post(CHAT, chat()).status == 429
        with looking(stack.redis_url) as redis:
            redis.flushall()
        assert [client.post(CHAT, chat()).status for client in clients] == [429, 429]
    all_closed(stack.dsn, tenant, 1)
    codes: list[int] = []

    def served() -> bool:
        codes.append(clients[1].post(CHAT, chat(max_tokens=5)).status)
        return codes[-1] == 200

    wait_for(served, "what was not used is free")
    assert set(codes[:-1]) <= {429}


def test_a_budget_of_one_model_is_not_that_of_another(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.limit(Level.ORGANIZATION, model="other", budget_day_pico_usd=0)
    assert stack.gateway.http(tenant.key).post(CHAT, chat()).status == 200
    tenant.limit(Level.ORGANIZATION, model="sim", budget_day_pico_usd=0)
    client = stack.gateway.http(tenant.key)
    wait_for(lambda: client.post(CHAT, chat()).status == 402, "the other rule is heard of")


def test_each_session_has_its_own_budget_on_every_replica_and_after_redis(stack: Stack) -> None:
    """However a client tells its session; one that tells none is let through, and found in the ledger without one."""
    tenant = stack.tenant(budget_session_pico_usd=TOKENS_PAID_FOR * OUTPUT_PICO)
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]
    asked = chat(max_tokens=25, ignore_eos=True)
    first, second = {"x-session-id": "ses_1"}, {"x-session-affinity": "ses_2"}
    assert clients[0].post(CHAT, asked, first).status == 200
    all_closed(stack.dsn, tenant, 1)
    for client in clients:
        refused = client.post(CHAT, asked, first)
        assert_refused(refused, 402, "budget_exceeded")
        assert "retry-after" not in refused.headers
        assert refused.error["message"].startswith("the session budget of 0.000032 USD is used up")
        with looking(stack.redis_url) as redis:
            redis.flushall()
    assert clients[1].post(CHAT, asked, second).status == 200
    assert clients[1].post(CHAT, {**asked, "prompt_cache_key": "ses_3"}).status == 200
    assert [clients[0].post(CHAT, asked).status for _ in range(3)] == [200] * 3
    rows = all_closed(stack.dsn, tenant, 6)
    assert [row["session"] for row in rows] == ["ses_1", "ses_2", "ses_3", None, None, None]
    assert [row["session"] for row in opened_events(stack.dsn, tenant)] == [row["session"] for row in rows]
    for told in (second, {"x-claude-code-session-id": "ses_3"}):
        assert_refused(clients[0].post(CHAT, asked, told), 402, "budget_exceeded")


def test_a_stream_is_stopped_when_its_session_s_budget_is_spent(stack: Stack) -> None:
    tenant = stack.tenant(budget_session_pico_usd=TOKENS_PAID_FOR * OUTPUT_PICO, budget_stops_streams=True)
    asked = chat(stream=True, max_tokens=4000, **LONG)
    with stack.gateway.http(tenant.key).stream(CHAT, asked, {"x-session-id": "ses_1"}) as stream:
        events = stream.chunks()
    assert not stream.cut
    assert events[-1]["error"]["code"] == "budget_exceeded"
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert 0 < row["completion_tokens"] <= TOKENS_PAID_FOR
