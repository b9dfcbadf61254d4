"""OpenCode at longer work: several tools in an answer, several turns in a session, sub-agents with their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.domain.principal import Level
from tests.support.agents import UNTITLED
from tests.support.chat import chat
from tests.support.ledger import all_closed, opened_events
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.agents import Agents

WRITE_BOTH = (
    'call bash {"command": "echo one > one.txt", "description": "write one"} and'
    ' call bash {"command": "echo two > two.txt", "description": "write two"},'
    ' then call read {"filePath": "opencode.json"}'
)
READ_BOTH = 'call bash {"command": "cat one.txt two.txt", "description": "read both"}'
# The prompt is in prose: a call spelled out in it would be taken for one of the first answer, too.
ASK_ANOTHER = (
    'call task {"description": "look around", "subagent_type": "general",'
    ' "prompt": "Use the bash tool to run: echo sub > sub.txt"}'
)

LONG = chat(model="gpu", max_tokens=60_000, sim={"output_tokens": 1})
"""May cost more than any budget here."""


def test_several_tools_in_an_answer_and_several_turns_are_one_session(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant()
    first = agents.work(tenant, tmp_path, WRITE_BOTH, *UNTITLED)
    second = agents.work(tenant, tmp_path, READ_BOTH, "--continue")
    assert (first.code, second.code, first.errors + second.errors) == (0, 0, [])
    assert sorted((tool["tool"], tool["state"]["status"]) for tool in first.tools) == [  # they run side by side
        ("bash", "completed"),
        ("bash", "completed"),
        ("read", "completed"),
    ]
    assert [tool["state"]["output"] for tool in second.tools] == ["one\ntwo\n"]
    rows = all_closed(agents.stack.dsn, tenant, 4)
    assert {row["session"] for row in rows} == first.sessions == second.sessions
    assert {(row["status"], row["coverage"]) for row in rows} == {("ok", "exact")}
    assert [row["prompt_tokens"] for row in rows] == first.prompts + second.prompts, "OpenCode counts the same"
    assert all(row["cached_tokens"] > row["prompt_tokens"] * 0.8 for row in rows[1:]), "what went before is warm"


def test_a_sub_agent_has_a_session_of_its_own(agents: Agents, tmp_path: Path) -> None:
    tenant, before = agents.stack.tenant(), agents.engine.metrics()
    run = agents.work(tenant, tmp_path, ASK_ANOTHER)
    assert (run.code, run.errors) == (0, []), run
    (task,) = run.tools
    assert (task["tool"], task["state"]["status"]) == ("task", "completed")
    assert (tmp_path / "project" / "sub.txt").read_text() == "sub\n"

    after = agents.engine.metrics()
    counted = {name: after[name] - before.get(name, 0) for name in after}
    rows = all_closed(agents.stack.dsn, tenant, int(counted["vllm:request_success_total"]))
    assert sum(row["prompt_tokens"] for row in rows) == counted["vllm:prompt_tokens_total"]
    assert sum(row["completion_tokens"] for row in rows) == counted["vllm:generation_tokens_total"]
    (session,) = run.sessions
    told = re.search(r"ses_\w+", task["state"]["output"])
    assert told is not None
    of_session = [row["session"] for row in rows]
    assert of_session.count(session) == 3, "the title, the call of the sub-agent, the answer to its result"
    assert of_session.count(told[0]) == 2, "the sub-agent's tool call and its answer: it asks for no title"
    assert len(rows) == 5


def test_a_session_that_has_spent_its_budget_is_told_once_and_a_new_one_goes_on(agents: Agents, tmp_path: Path) -> None:
    tenant = agents.stack.tenant()
    first = agents.work(tenant, tmp_path, "Say something.", *UNTITLED)
    (row,) = all_closed(agents.stack.dsn, tenant, 1)
    # Instructions are nearly all of it, and half as much again is reserved for them: enough for one request, not two.
    tenant.limit(Level.KEY, budget_session_pico_usd=int(row["cost_pico_usd"] * 2), budget_stops_streams=True)
    client = agents.stack.gateway.http(tenant.key)
    told = {"x-session-id": "ses_long"}
    wait_for(lambda: client.post("/v1/chat/completions", LONG, told).status == 402, "the budget is in force")

    before = len(opened_events(agents.stack.dsn, tenant))
    second = agents.work(tenant, tmp_path, "Say more.", "--continue")
    assert second.code != 0
    assert ["session budget" in message for message in second.errors] == [True]
    assert len(opened_events(agents.stack.dsn, tenant)) == before
    third = agents.work(tenant, tmp_path, "Say something.", *UNTITLED)
    assert (third.code, third.errors) == (0, [])
    assert first.sessions == {row["session"]} != third.sessions
