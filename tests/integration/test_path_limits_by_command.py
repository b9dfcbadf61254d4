"""Limits as operators set them, by the real command on a running replica: in force within a second, and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.units import PicoUsd, format_usd
from tests.support.chat import chat
from tests.support.command import Penstock
from tests.support.ledger import all_closed
from tests.support.permanent import admin
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
ASKED = chat(max_tokens=10, ignore_eos=True)
SLOW = chat(sim={"ttft_ms": 60_000})
PICO = 10**12


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("command")) as running:
        yield running


@pytest.fixture
def command(stack: Stack, tmp_path: Path) -> Penstock:
    """The command, on the database of the replica."""
    return Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": stack.dsn})


@pytest.fixture
def tenant(stack: Stack) -> Tenant:
    """A tenant without limits."""
    return stack.tenant()


def made_key(command: Penstock, tenant: Tenant, *options: str) -> dict[str, Any]:
    """Make a key with the options and return what the command says of it."""
    made: dict[str, Any] = command("key", "create", "--team", str(tenant.team_id), *options, "--json").document
    return made


def spend_all(client: Http) -> tuple[int, Answer]:
    """Ask until a budget is spent; return how many were served, and the refusal."""
    for served in range(100):
        answer = client.post(CHAT, ASKED)
        if answer.status == 429:  # what the one before had reserved is about to come back
            answer = wait_for(lambda: [a for a in (client.post(CHAT, ASKED),) if a.status != 429], "it is settled")[0]
        if answer.status != 200:
            return served, answer
    raise AssertionError("nothing was ever refused")


def test_a_key_with_two_places_serves_two_at_once(stack: Stack, command: Penstock, tenant: Tenant) -> None:
    made = made_key(command, tenant, "--concurrent-requests", "2")
    client = stack.gateway.http(made["key"])
    held = [client.asked(CHAT, SLOW) for _ in range(2)]
    try:
        refused = wait_for(lambda: [a for a in (client.post(CHAT, ASKED),) if a.status != 200], "both places are taken")
        assert_refused(refused[0], 429, "rate_limit_exceeded")
        assert "concurrent requests" in refused[0].error["message"]
        assert int(refused[0].headers["retry-after"]) >= 1
        command("limit", "set", "--key", made["id"], "--concurrent-requests", "3")
        wait_for(lambda: client.post(CHAT, ASKED).status == 200, "a third place is there")
    finally:
        for connection in held:
            connection.hang_up()
    command("limit", "set", "--key", made["id"], "--concurrent-requests", "1")
    wait_for(lambda: client.post(CHAT, ASKED).status == 200, "the places of those that hung up are free again")


def test_a_budget_is_spent_and_no_more_until_it_is_raised(stack: Stack, command: Penstock, tenant: Tenant) -> None:
    made = made_key(command, tenant, "--budget-usd", "0.00015", "--budget-period", "month")
    client = stack.gateway.http(made["key"])
    served, refused = spend_all(client)
    assert_refused(refused, 402, "budget_exceeded")
    assert "retry-after" not in refused.headers
    spent = sum(row["cost_pico_usd"] for row in all_closed(stack.dsn, tenant, served))
    assert 0 < spent <= 0.00015 * PICO
    (listed,) = [rule for rule in command("limit", "list", "--json").document if rule["subject_id"] == made["id"]]
    assert (listed["budget_month_usd"], listed["spent_day_usd"]) == ("0.00015", None)
    assert listed["spent_month_usd"] == format_usd(PicoUsd(int(spent)))
    assert stack.gateway.http(tenant.key).post(CHAT, ASKED).status == 200, "another key of the team"
    command("limit", "set", "--key", made["id"], "--budget-usd", "1000", "--budget-period", "month")
    wait_for(lambda: client.post(CHAT, ASKED).status == 200, "the larger budget counts")
    command("limit", "set", "--key", made["id"], "--budget-usd", "0", "--budget-period", "month")
    wait_for(lambda: client.post(CHAT, ASKED).status == 402, "a budget of nothing lets nothing through")
    command("limit", "set", "--key", made["id"], "--budget-usd", "none", "--budget-period", "month")
    wait_for(lambda: client.post(CHAT, ASKED).status == 200, "there is no budget any more")


def test_limits_of_a_new_key_narrowed_to_a_model(stack: Stack, command: Penstock, tenant: Tenant) -> None:
    narrow = ("--max-output-tokens", "5", "--requests-per-minute", "1")
    other = stack.gateway.http(made_key(command, tenant, *narrow, "--model", "other")["key"])
    assert [other.post(CHAT, ASKED).document["usage"]["completion_tokens"] for _ in range(2)] == [10, 10]
    same = stack.gateway.http(made_key(command, tenant, *narrow, "--model", "sim")["key"])
    assert same.post(CHAT, ASKED).document["usage"]["completion_tokens"] == 5
    assert_refused(same.post(CHAT, ASKED), 429, "rate_limit_exceeded")


def test_a_replica_knows_which_models_there_are(stack: Stack, tenant: Tenant) -> None:
    operator = stack.gateway.http()
    wanted = {"level": "team", "subject": str(tenant.team_id), "tokens_per_minute": 5, "model": "default"}
    refused = operator.post("/admin/v1/limits", wanted, admin(stack.dsn))
    assert (refused.status, refused.error["param"]) == (400, "model")
    assert refused.error["detail"] == "'default' is an alias of 'sim': name that"


@pytest.mark.parametrize(("unit", "fields"), [("input", {"text": "word " * 400}), ("output", {"max_tokens": 400})])
def test_input_and_output_tokens_have_limits_of_their_own(
    stack: Stack, command: Penstock, tenant: Tenant, unit: str, fields: dict[str, Any]
) -> None:
    made = made_key(command, tenant, f"--{unit}-tokens-per-minute", "700")
    client = stack.gateway.http(made["key"])
    asked = {"max_tokens": 1, **fields}
    request = chat(str(asked.pop("text", "hello")), ignore_eos=True, **asked)
    assert client.post(CHAT, request).status == 200
    refused = client.post(CHAT, request)
    assert_refused(refused, 429, "rate_limit_exceeded")
    assert f"{unit}-tokens per minute" in refused.error["message"]
