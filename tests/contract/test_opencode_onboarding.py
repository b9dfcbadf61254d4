"""`opencode auth login https://gateway` is all that a developer does: all else comes from the gateway at each start."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.agents import UNTITLED
from tests.support.engine import EngineProcess
from tests.support.ledger import all_closed, opened_events
from tests.support.opencode import program
from tests.support.opencode_login import Developer
from tests.support.stack import Stack, running_stack
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

UPSTREAM = "Qwen/Qwen3-Coder"
PRICE = {"input": "0.20", "cached_input": "0.02", "output": "0.80"}
SIZES = {"context": 262_144, "output": 65_536}
MODELS: dict[str, dict[str, Any]] = {
    "titles": {"pool": "gpu", "upstream": UPSTREAM, "capabilities": {"tools": False}},
    "coder": {"pool": "gpu", "upstream": UPSTREAM, "aliases": ["default"], "price": PRICE, **SIZES}
    | {"capabilities": {"reasoning": True, "images": True}},
    "hidden": {"pool": "gpu", "upstream": UPSTREAM},
}
ALLOWED = ["titles", "coder"]
TASK = "Use the bash tool to run: echo hello | tee greeting.txt"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before one engine, with a small model for titles."""
    engines, folder = [EngineProcess(UPSTREAM)], tmp_path_factory.mktemp("onboarding")
    config = {"models": MODELS, "settings": {"opencode_small_model": "titles", "opencode_only": True}}
    with running_stack(databases, servers, folder, engines=engines, config=config) as running:
        yield running


@pytest.fixture
def developer(tmp_path: Path) -> Developer:
    """Somebody who has installed OpenCode and nothing else."""
    return Developer(tmp_path)


def refusals(stack: Stack) -> list[int]:
    """Return the statuses of what the replica refused so far."""
    return [line["status"] for line in stack.gateway.log_lines() if line["event"] == "refused"]


def test_one_command_and_it_works(stack: Stack, developer: Developer) -> None:
    tenant = stack.tenant(models=ALLOWED)
    developer.logs_in(stack.gateway.url, tenant.key)
    assert developer.stored == {stack.gateway.url: {"type": "wellknown", "key": "PENSTOCK_KEY", "token": tenant.key}}
    assert stat.S_IMODE(developer.place_of_credentials.stat().st_mode) == 0o600

    known = developer.described()
    assert set(known) == set(ALLOWED), "what the key may not use is not told"
    offered = developer("models").out.split()
    assert {name.partition("/")[0] for name in offered} == {"penstock"}, "none that sends prompts elsewhere"
    coder, titles = known["coder"], known["titles"]
    assert (coder["limit"], titles["limit"]) == (SIZES, {"context": 0, "output": 0})
    assert coder["cost"] == {"input": 0.2, "output": 0.8, "cache": {"read": 0.02, "write": 0}}
    abilities = ("toolcall", "reasoning", "attachment")
    assert [coder["capabilities"][name] for name in abilities] == [True, True, True]
    assert [titles["capabilities"][name] for name in abilities] == [False, False, False]
    assert (coder["capabilities"]["input"]["image"], titles["capabilities"]["input"]["image"]) == (True, False)

    run = developer.works(TASK)
    assert (run.code, run.errors) == (0, []), run
    (tool,) = run.tools
    assert (tool["tool"], tool["state"]["output"]) == ("bash", "hello\n")
    rows = all_closed(stack.dsn, tenant, 3)
    assert sorted(row["model"] for row in rows) == ["coder", "coder", "titles"], "and the title by the small model"
    assert {row["session"] for row in rows} == run.sessions


def test_a_revoked_key_is_told_and_opencode_still_starts(stack: Stack, developer: Developer) -> None:
    tenant = stack.tenant(models=ALLOWED)
    developer.logs_in(stack.gateway.url, tenant.key)
    tenant.revoke()
    before = len(refusals(stack))
    (only,) = developer.described().values()
    assert (only["id"], "revoked" in only["name"]) == ("key-not-accepted", True)
    run = developer.works("Say something.")
    assert run.code != 0
    assert ["revoked" in message for message in run.errors] == [True], run
    assert run.tools == []
    refused = refusals(stack)[before:]
    assert 1 <= refused.count(401) <= 2, "the title and the first step: neither is repeated"
    assert set(refused) == {401}
    assert opened_events(stack.dsn, tenant) == []


def test_a_spent_budget_is_shown_once_and_not_repeated(stack: Stack, developer: Developer) -> None:
    tenant = stack.tenant(models=["coder"], budget_month_pico_usd=1)
    developer.logs_in(stack.gateway.url, tenant.key)
    before = len(refusals(stack))
    run = developer.works("Say something.", *UNTITLED)
    assert run.code != 0
    assert ["budget per month is used up" in message for message in run.errors] == [True]
    assert refusals(stack)[before:] == [402]
    assert opened_events(stack.dsn, tenant) == []


def test_a_spent_limit_is_waited_out(stack: Stack, developer: Developer) -> None:
    tenant = stack.tenant(models=["coder"], requests_per_minute=12, requests_burst=1)
    developer.logs_in(stack.gateway.url, tenant.key)
    before = len(refusals(stack))
    run = developer.works(TASK, *UNTITLED)
    assert (run.code, run.errors, len(run.tools)) == (0, [], 1), run
    assert refusals(stack)[before:] == [429], "it came back once, when it was told to"
    assert {row["status"] for row in all_closed(stack.dsn, tenant, 2)} == {"ok"}


def test_a_person_is_asked_at_the_terminal_and_the_key_is_not_shown(stack: Stack, developer: Developer) -> None:
    key = stack.tenant(models=["coder"]).key
    with Terminal([program(), "auth", "login", stack.gateway.url], developer.folder, developer.environment) as terminal:
        terminal.shows(f"Paste your key for {stack.gateway.url} (it is not shown)")
        terminal.types(f"{key}\n")
        assert terminal.ends() == 0
    assert "Logged into" in terminal.shown
    assert key not in terminal.shown
    assert developer.stored[stack.gateway.url]["token"] == key
    assert developer.models() == ["coder"]


def test_without_a_terminal_and_a_key_nothing_is_stored(stack: Stack, developer: Developer) -> None:
    told = developer("auth", "login", stack.gateway.url)
    assert "set PENSTOCK_KEY" in told.out + told.err
    told = developer("auth", "login", stack.gateway.url, PENSTOCK_KEY="sk-of-somebody-else")
    assert f"keys begin with sk-pst-. {stack.gateway.url}/setup says how to get one" in told.out + told.err
    assert not developer.place_of_credentials.exists()


def test_where_there_is_no_sh_powershell_is_asked_for(stack: Stack, developer: Developer) -> None:
    """A stand-in for PowerShell keeps what it was told to run, and answers as it would."""
    key, told = stack.tenant(models=["coder"]).key, developer.folder / "told"
    stand_in = developer.folder / "powershell"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{told}\nprintf %s {key}\n')
    stand_in.chmod(0o755)
    url = f"{stack.gateway.url}?shell=powershell"
    path = os.pathsep.join([str(developer.folder), developer.environment["PATH"]])
    assert developer("auth", "login", url, PATH=path).code == 0
    assert told.read_text().startswith("-NoProfile\n-Command\n$key = $env:PENSTOCK_KEY\n")
    assert developer.stored[url]["token"] == key
    assert developer.models() == ["coder"], "which is asked by the same address at each start"


def test_a_key_that_was_stored_by_hand_is_enough_for_a_project(stack: Stack, developer: Developer) -> None:
    """`/connect` → Other stores the key alone; the provider comes from `penstock opencode config --stored-key`."""
    tenant = stack.tenant(models=["coder"])
    with Terminal([program(), "auth", "login"], developer.folder, developer.environment) as terminal:
        terminal.shows("to search")
        terminal.types("Other")
        terminal.shows("(1 match)")
        terminal.types("\n")
        terminal.shows("Enter provider id")
        terminal.types("penstock\n")
        terminal.shows("Enter your API key")
        terminal.types(f"{tenant.key}\n")
        terminal.ends()
    assert developer.stored == {"penstock": {"type": "api", "key": tenant.key}}
    made = developer.penstock("opencode", "config", "--stored-key", f"--base-url={stack.gateway.url}", key=tenant.key)
    assert tenant.key not in made.out
    run = developer.works("Say something.", *UNTITLED, config=made.document)
    assert (run.code, run.errors) == (0, []), run
    assert len(all_closed(stack.dsn, tenant, 1)) == 1
