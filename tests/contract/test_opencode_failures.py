"""What OpenCode does when a request fails: it comes back where that helps, nowhere else, and never in a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.agents import UNTITLED
from tests.support.ledger import all_closed, opened_events
from tests.support.scripted import stream_script

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import Agents
    from tests.support.engine import EngineProcess
    from tests.support.opencode import Event
    from tests.support.tenants import Tenant

SAY = "Say something."
SLOW_TOKENS_PER_S = 20
PAYS_FOR_ONE = 40_000_000_000
"""Pico-USD: OpenCode's instructions, generously, and some thousand tokens of an answer."""


def chunk(finish_reason: str | None = None, **delta: str) -> dict[str, Any]:
    """Return a piece of a scripted answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


HELLO = chunk(role="assistant", content="hello")
USAGE = {**HELLO, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
WHOLE = stream_script(HELLO, chunk("stop"), USAGE, "[DONE]")
REFUSAL = {"message": "no such grammar", "type": "BadRequestError", "code": 400}


def ended(agents: Agents, tenant: Tenant, count: int) -> list[tuple[str, str]]:
    """Return status and coverage of a tenant's requests, which must be this many."""
    return [(row["status"], row["coverage"]) for row in all_closed(agents.stack.dsn, tenant, count)]


def test_a_stream_that_is_reset_is_repeated_and_billed_as_what_it_was(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant()
    agents.engine.control(abort_after_chunks=5, times=1)
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED)
    assert (run.code, run.errors) == (0, []), run
    assert ended(agents, tenant, 2) == [("upstream_error", "estimated"), ("ok", "exact")]
    broken, whole = all_closed(agents.stack.dsn, tenant, 2)
    assert 0 < broken["completion_tokens"] < whole["completion_tokens"]
    assert broken["prompt_tokens"] > 0
    assert (run.prompts, run.sessions) == ([whole["prompt_tokens"]], {broken["session"], whole["session"]})


def test_an_engine_that_is_killed_in_mid_stream_is_left_for_the_other(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant()
    killed: list[EngineProcess] = []
    for engine in agents.pair:
        engine.control(tokens_per_second=SLOW_TOKENS_PER_S)

    def kill(event: Event) -> None:
        if event["type"] == "step_start" and not killed:
            victim, other = sorted(agents.pair, key=lambda engine: -int(engine.counters()["running"]))
            other.control(tokens_per_second=None)
            victim.kill()
            killed.append(victim)

    run = agents.work(tenant, tmp_path, SAY, *UNTITLED, model="pair", on_event=kill)
    killed[0].start()
    assert (run.code, run.errors) == (0, []), run
    assert ended(agents, tenant, 2) == [("upstream_error", "estimated"), ("ok", "exact")]
    broken, whole = all_closed(agents.stack.dsn, tenant, 2)
    assert broken["engine"] == killed[0].url != whole["engine"]
    assert broken["completion_tokens"] > 0


def test_an_answer_without_a_finish_is_repeated_and_not_in_a_loop(agents: Agents, tmp_path: Path) -> None:
    tenant, asked = agents.stack.tenant(), len(agents.odd.bodies)
    agents.odd.first = [stream_script(HELLO), stream_script(HELLO, "[DONE]")]
    agents.odd.script = WHOLE
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED, model="odd")
    assert (run.code, run.errors) == (0, []), run
    assert len(agents.odd.bodies) - asked == 3
    assert ended(agents, tenant, 3) == [("upstream_error", "estimated")] * 2 + [("ok", "exact")]


def test_a_refusal_in_mid_stream_is_shown_and_not_repeated(agents: Agents, tmp_path: Path) -> None:
    tenant, asked = agents.stack.tenant(), len(agents.odd.bodies)
    agents.odd.script = stream_script(HELLO, {"error": REFUSAL})
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED, model="odd")
    assert run.code != 0
    assert "no such grammar" in run.errors[0]
    assert len(agents.odd.bodies) - asked == 1


def test_a_spent_budget_of_the_engine_is_shown_and_not_repeated(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant()
    agents.engine.control(status=402, times=1)  # a repetition would succeed
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED)
    assert run.code != 0
    assert len(run.errors) == 1
    (row,) = all_closed(agents.stack.dsn, tenant, 1)
    assert (row["http_status"], row["completion_tokens"], row["cost_pico_usd"]) == (402, 0, 0)


def test_a_spent_budget_is_shown_and_not_repeated(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant(budget_month_pico_usd=1)
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED)
    assert run.code != 0
    assert ["budget per month is used up" in message for message in run.errors] == [True]
    assert opened_events(agents.stack.dsn, tenant) == []


def test_a_stream_that_its_budget_stops_is_shown_and_not_repeated(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant(budget_month_pico_usd=PAYS_FOR_ONE, budget_stops_streams=True)
    agents.engine.control(output_tokens=30_000, tokens_per_second=2000)
    try:
        run = agents.work(tenant, tmp_path, SAY, *UNTITLED)
    finally:
        agents.engine.control(output_tokens=None, tokens_per_second=None)
    assert run.code != 0
    assert ["the budget is used up" in message for message in run.errors] == [True]
    (row,) = all_closed(agents.stack.dsn, tenant, 1)
    assert (row["status"], row["error_code"]) == ("interrupted", "budget_exceeded")
    assert 0 < row["cost_pico_usd"] <= PAYS_FOR_ONE


def test_a_conversation_that_is_too_long_is_shortened_once(agents: Agents, tmp_path: Path) -> None:
    """Its instructions alone are longer than this engine's context, so shortening cannot help: it must end."""
    tenant = agents.stack.tenant()
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED, model="short")
    assert run.code != 0
    assert {event["error"]["name"] for event in run.of_type("error")} == {"ContextOverflowError"}
    rows = all_closed(agents.stack.dsn, tenant, 2)
    assert {(row["error_code"], row["cost_pico_usd"]) for row in rows} == {("context_length_exceeded", 0)}


def test_a_limit_below_its_instructions_is_told_once_and_nothing_is_summed_up(agents: Agents, tmp_path: Path) -> None:
    """Told 413, OpenCode would have the model sum up nothing, pay for it, and ask again, for ever."""
    tenant = agents.stack.tenant(tokens_per_minute=3000)
    run = agents.work(tenant, tmp_path, SAY, *UNTITLED)
    assert run.code != 0
    assert ["tools and instructions alone" in message for message in run.errors] == [True]
    assert opened_events(agents.stack.dsn, tenant) == []
