"""The real OpenCode client at work through the gateway, and every token of it accounted for.

This is what Penstock is for: a coding agent runs a tool, and afterwards the ledger says to the token what the engine
itself counted. The other tests are about what OpenCode does with a refusal: it must neither loop nor hide it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.support.agents import UNTITLED
from tests.support.engine import EngineProcess
from tests.support.ledger import all_closed, cost_at
from tests.support.opencode import OpenCodeRun, configuration, run_opencode
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

UPSTREAM = "Qwen/Qwen3-Coder"
PRICE = {"input": "0.20", "cached_input": "0.02", "output": "0.80"}
MODELS: dict[str, dict[str, Any]] = {
    "qwen-coder": {
        "pool": "gpu",
        "upstream": UPSTREAM,
        "context": 262_144,
        "output": 65_536,
        "price": PRICE,
    },
    "hidden": {"pool": "gpu", "upstream": UPSTREAM},
}
TASK = "Use the bash tool to run: echo hello | tee greeting.txt"

REFUSAL_REQUESTS_MAX = 2
"""The title and the first step: neither is repeated."""


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before one engine."""
    engines, folder = [EngineProcess(UPSTREAM)], tmp_path_factory.mktemp("opencode")
    with running_stack(databases, servers, folder, engines=engines, config={"models": MODELS}) as running:
        yield running


def work(
    stack: Stack, tenant: Tenant, folder: Path, message: str = TASK, *arguments: str, model: str = "qwen-coder"
) -> OpenCodeRun:
    """Let OpenCode do something with a tenant's key."""
    config = configuration(stack.gateway.base_url, tenant.key, tuple(MODELS))
    run = run_opencode(folder, message, "-m", f"penstock/{model}", *arguments, config=config)
    assert not run.timed_out, run
    return run


def test_a_tool_call_is_done_and_the_ledger_equals_the_engine(stack: Stack, tmp_path: Path) -> None:
    tenant, before = stack.tenant(), stack.engine.metrics()
    run = work(stack, tenant, tmp_path)
    assert (run.code, run.errors) == (0, []), run
    (tool,) = run.tools
    assert (tool["tool"], tool["state"]["status"], tool["state"]["output"]) == ("bash", "completed", "hello\n")
    assert (tmp_path / "project" / "greeting.txt").read_text() == "hello\n"
    assert run.of_type("text")

    after = stack.engine.metrics()
    counted = {name: after[name] - before.get(name, 0) for name in after}
    rows = all_closed(stack.dsn, tenant, int(counted["vllm:request_success_total"]))
    assert len(rows) == 3, "the title, the tool call, the answer to its result"
    assert sum(row["prompt_tokens"] for row in rows) == counted["vllm:prompt_tokens_total"]
    assert sum(row["completion_tokens"] for row in rows) == counted["vllm:generation_tokens_total"]
    assert sum(row["cached_tokens"] for row in rows) == counted["vllm:prefix_cache_hits_total"] > 0
    assert {(row["status"], row["coverage"]) for row in rows} == {("ok", "exact")}
    assert {row["session"] for row in rows} == run.sessions
    assert {(row["model"], row["streamed"]) for row in rows} == {("qwen-coder", True)}
    assert set(run.prompts) <= {row["prompt_tokens"] for row in rows}, "and OpenCode itself saw the same"
    assert all(row["cost_pico_usd"] == cost_at(PRICE | {"reasoning": PRICE["output"]}, row) > 0 for row in rows)


def test_a_session_goes_on_with_what_the_engine_has_cached(stack: Stack, tmp_path: Path) -> None:
    tenant = stack.tenant()
    first = work(stack, tenant, tmp_path, "Say something.", *UNTITLED)
    second = work(stack, tenant, tmp_path, "Say something else.", "--continue")
    assert (first.code, second.code) == (0, 0)
    assert second.sessions == first.sessions
    rows = all_closed(stack.dsn, tenant, 2)
    assert {row["session"] for row in rows} == first.sessions
    assert rows[-1]["cached_tokens"] > rows[-1]["prompt_tokens"] // 2


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_minute": 8, "requests_burst": 1},
        {"tokens_per_minute": 45_000, "tokens_burst": 10_000},  # room for one step, not for the next one
    ],
    ids=["requests", "tokens"],
)
def test_a_spent_limit_is_waited_out(stack: Stack, tmp_path: Path, limits: dict[str, int]) -> None:
    """429 with its time to wait: OpenCode comes back when it was told to, not before, and finishes."""
    tenant, lines_before = stack.tenant(**limits), len(stack.gateway.log_lines())
    run = work(stack, tenant, tmp_path, TASK, *UNTITLED)
    assert (run.code, run.errors, len(run.tools)) == (0, [], 1), run
    served = all_closed(stack.dsn, tenant, 2)
    assert {row["status"] for row in served} == {"ok"}
    refused = [line for line in stack.gateway.log_lines()[lines_before:] if line["event"] == "refused"]
    assert [line["status"] for line in refused] == [429], "the second step came back once, and was served"
    waited_ms = arrived_ms(str(served[1]["event_id"])) - arrived_ms(refused[0]["request_id"])
    assert waited_ms >= refused[0]["retry_after_s"] * 1000


@pytest.mark.parametrize("case", ["revoked key", "model of others"])
def test_a_refusal_is_shown_and_not_repeated(stack: Stack, tmp_path: Path, case: str) -> None:
    tenant = stack.tenant(models=["qwen-coder"])
    if case == "revoked key":
        tenant.revoke()
    refused_before = len(refusals(stack))
    run = work(stack, tenant, tmp_path, model="qwen-coder" if case == "revoked key" else "hidden")
    expected = "API key was revoked" if case == "revoked key" else "may not use the model 'hidden'"
    assert run.code != 0
    assert any(expected in message for message in run.errors), run
    assert run.tools == []
    assert 1 <= len(refusals(stack)) - refused_before <= REFUSAL_REQUESTS_MAX


def refusals(stack: Stack) -> list[dict[str, Any]]:
    """Return the replica's log lines about requests that it refused."""
    return [line for line in stack.gateway.log_lines() if line["event"] == "refused"]


def arrived_ms(request_id: str) -> int:
    """Return when a request came, in ms since 1970: its id begins with that."""
    return UUID(request_id).int >> 80
