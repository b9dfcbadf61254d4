"""OpenCode at longer work: several tools in an answer, several turns in a session, sub-agents with their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.agents import UNTITLED
from tests.support.ledger import all_closed

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
