"""The AI SDK that most JavaScript agents stand on, through the gateway: tools, streams, usage, hang-ups, retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ai_sdk import run_ai_sdk
from tests.support.ledger import all_closed, closed_event, opened_events
from tests.support.scripted import json_script, stream_script

if TYPE_CHECKING:
    from tests.support.agents import Agents
    from tests.support.tenants import Tenant

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 9,
    "total_tokens": 49,
    "prompt_tokens_details": {"cached_tokens": 32},
    "completion_tokens_details": {"reasoning_tokens": 7},
}
HEAD = {"id": "c", "created": 1, "model": "m"}
SAID = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
TRIES_MAX = 8
"""Requests until one has gone to a given engine of two."""
streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def ask(agents: Agents, tenant: Tenant, prompt: str = "hello", **job: Any) -> dict[str, Any]:
    """Let the SDK do something with a tenant's key."""
    return run_ai_sdk(agents.stack.gateway.base_url, tenant.key, **({"model": "gpu", "prompt": prompt} | job))


def statuses(outcome: dict[str, Any]) -> list[int]:
    """Return the status of every answer that it got."""
    return [answer["status"] for answer in outcome["answers"]]


@streams
def test_tools_take_several_steps_and_usage_is_the_ledgers(agents: Agents, *, stream: bool) -> None:
    tenant = agents.stack.tenant()
    prompt = 'call lookup {"query": "one"} and call lookup {"query": "two"}'
    outcome = ask(agents, tenant, prompt, tool="lookup", stream=stream)
    first, last = outcome["steps"]
    assert first["finish"] == "tool-calls"
    assert first["calls"] == [["lookup", {"query": "one"}], ["lookup", {"query": "two"}]]
    assert first["results"] == ["found one", "found two"]
    assert last["finish"] == "stop"
    assert outcome["text"]
    rows = all_closed(agents.stack.dsn, tenant, 2)
    assert {(row["status"], row["coverage"], row["streamed"]) for row in rows} == {("ok", "exact", stream)}
    usage = outcome["usage"]
    assert usage["inputTokens"] == sum(row["prompt_tokens"] for row in rows)
    assert usage["inputTokenDetails"]["cacheReadTokens"] == sum(row["cached_tokens"] for row in rows)
    assert usage["outputTokens"] == sum(row["completion_tokens"] for row in rows)


@streams
def test_cached_and_reasoning_tokens_are_told_apart(agents: Agents, *, stream: bool) -> None:
    tenant = agents.stack.tenant()
    if stream:
        piece, end = ({"index": 0, "delta": delta, "finish_reason": why} for delta, why in ((SAID, None), ({}, "stop")))
        usage = {**HEAD, "choices": [], "usage": USAGE}
        agents.odd.script = stream_script({**HEAD, "choices": [piece]}, {**HEAD, "choices": [end]}, usage, "[DONE]")
    else:
        choice = {"index": 0, "message": SAID, "finish_reason": "stop"}
        agents.odd.script = json_script({**HEAD, "choices": [choice], "usage": USAGE})
    outcome = ask(agents, tenant, model="odd", stream=stream)
    assert (outcome["text"], outcome["reasoning"]) == ("yes", ["hm"])
    usage = outcome["usage"]
    (row,) = all_closed(agents.stack.dsn, tenant, 1)
    told = (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], row["reasoning_tokens"])
    assert told == (40, 32, 9, 7)
    assert told == (
        usage["inputTokens"],
        usage["inputTokenDetails"]["cacheReadTokens"],
        usage["outputTokens"],
        usage["outputTokenDetails"]["reasoningTokens"],
    )


def test_a_hang_up_reaches_the_engine_and_is_billed(agents: Agents) -> None:
    tenant, aborted = agents.stack.tenant(), agents.engine.counters()["aborted"]
    endless = {"sim": {"output_tokens": 1000, "tokens_per_second": 50}}
    outcome = ask(agents, tenant, stream=True, hang_up_after=3, fields=endless)
    assert outcome["aborted"]
    assert 3 <= outcome["pieces"] < 1000, "more than the third may have been there when it hung up"
    agents.engine.wait_for(lambda counters: counters["aborted"] == aborted + 1)
    row = closed_event(agents.stack.dsn, outcome["answers"][0]["request_id"])
    assert (row["status"], row["coverage"]) == ("client_closed", "estimated")
    assert row["completion_tokens"] >= 3


@streams
def test_a_wrong_key_is_told_once(agents: Agents, *, stream: bool) -> None:
    outcome = run_ai_sdk(agents.stack.gateway.base_url, "sk-pst-nobody", model="gpu", prompt="hello", stream=stream)
    assert outcome["error"]["status"] == 401
    assert "API key" in outcome["error"]["message"]
    assert statuses(outcome) == [401]


@streams
def test_a_spent_limit_is_waited_out(agents: Agents, *, stream: bool) -> None:
    tenant = agents.stack.tenant(requests_per_minute=40, requests_burst=1)
    ask(agents, tenant)
    outcome = ask(agents, tenant, stream=stream)
    assert statuses(outcome) == [429, 200]
    refused, served = outcome["answers"]
    assert served["asked_ms"] - refused["answered_ms"] >= int(refused["retry_after_ms"]) - 1  # whole ms on both sides
    assert outcome["text"]
    assert len(opened_events(agents.stack.dsn, tenant)) == 2, "what was refused costs nothing"


@streams
def test_an_engine_that_breaks_off_before_the_first_byte_is_not_seen(agents: Agents, *, stream: bool) -> None:
    """The gateway asks the other engine by itself; the one that broke is the first that is asked."""
    tenant, broken = agents.stack.tenant(), agents.pair[0]
    received = broken.counters()["received"]
    broken.control(abort_after_chunks=0, times=1)
    for _ in range(TRIES_MAX):
        outcome = ask(agents, tenant, model="pair", stream=stream, retries=0)
        assert (statuses(outcome), outcome.get("error")) == ([200], None)
        assert outcome["text"]
        if broken.counters()["received"] > received:
            break
    last = closed_event(agents.stack.dsn, outcome["answers"][0]["request_id"])
    assert (last["status"], last["attempts"], last["engine"]) == ("ok", 2, agents.pair[1].url)
