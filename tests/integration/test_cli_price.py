"""`penstock price`: exact rates, moments, mistakes, and what a running replica bills before and after."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from tests.support.chat import chat
from tests.support.ledger import closed_event, cost_at
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.support.command import Penstock
    from tests.support.gateway import GatewayProcess
    from tests.support.http import Http
    from tests.support.tenants import Tenant

RATES = ("--input", "0.2", "--output", "1.5")
CHEAP = {"input": "0.20", "cached_input": "0.02", "output": "0.80", "reasoning": "0.80"}
NEW = {"input": "7", "cached_input": "7", "output": "11.000001", "reasoning": "13", "request": "0.000000000003"}


def test_a_price_is_kept_to_the_last_digit_and_listed(penstock: Penstock) -> None:
    exact = ("--input", "0.000001", "--output", "999999.999999", "--cached-input", "0", "--request", "0.000000000001")
    made = penstock("price", "set", "qwen", *exact, "--reasoning", "3.50", "--json").document
    rates = [made[name] for name in ("input", "cached_input", "output", "reasoning", "request")]
    assert rates == ["0.000001", "0", "999999.999999", "3.5", "0.000000000001"]
    assert (made["model"], made["source"], made["effective_until"], made["rerate"]) == ("qwen", "admin", None, None)
    later = penstock("price", "set", "qwen", *RATES, "--from", "2031-01-01", "--json").document
    assert (later["cached_input"], later["reasoning"], later["effective_from"]) == (
        "0.2",
        "1.5",
        "2031-01-01T00:00:00Z",
    )
    penstock("price", "set", "other", *RATES)
    listed = penstock("price", "list", "--json").document
    assert [row["model"] for row in listed] == ["other", "qwen", "qwen"]
    assert listed[1]["effective_until"] == later["effective_from"]
    assert "2031-01-01 00:00Z" in penstock("price", "list", "--model", "qwen").out
    penstock("price", "set", "qwen", *RATES)
    assert len(penstock("price", "list", "--model", "qwen", "--json").document) == 2
    assert len(penstock("price", "list", "--model", "qwen", "--all", "--json").document) == 3
    assert "set one with: penstock price set" in penstock("price", "list", "--model", "none").out


def test_a_price_of_the_past_comes_with_the_command_that_applies_it(penstock: Penstock) -> None:
    said = penstock("price", "set", "qwen", *RATES, "--from", "2026-01-02T03:04:05.678Z")
    command = "penstock ledger rerate --since 2026-01-02T03:04:05.678000Z --model qwen"
    assert command in said.out
    assert "it had no price before: its name must be that of penstock.yaml" in said.out
    again = penstock("price", "set", "qwen", *RATES, "--from", "30d", "--json").document
    assert again["rerate"].startswith("penstock ledger rerate --since 20")
    assert penstock("price", "set", "qwen", *RATES).out.count("\n") == 1, "nothing to add"


def test_mistakes_are_told_in_one_line_and_set_nothing(penstock: Penstock) -> None:
    for arguments, message in (
        (("qwen", "--input", "1e3", "--output", "1"), "input must be a plain decimal number in USD"),
        (("qwen", "--input", "1"), "Missing option '--output'"),
        (("a model", *RATES), "'a model' is no name of a model"),
    ):
        done = penstock("price", "set", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert message in done.err
    assert penstock("price", "list", "--json").document == []


def test_two_prices_from_one_moment_are_refused(penstock: Penstock) -> None:
    assert penstock("price", "set", "qwen", *RATES, "--from", "2031-01-01").code == 0
    done = penstock("price", "set", "qwen", *RATES, "--from", "2031-01-01T01:00+01:00")
    assert (done.code, done.out) == (1, "")
    assert "has a price from that very moment" in done.err


def event_of(client: Http, dsn: str) -> dict[str, Any]:
    """Send one request and return its event."""
    answer = client.post("/v1/chat/completions", chat(max_tokens=3))
    assert answer.status == 200
    return closed_event(dsn, answer.headers["x-request-id"])


def test_a_running_replica_bills_a_new_price_from_its_moment_on(
    gateway: GatewayProcess, tenant: Tenant, penstock: Penstock, postgres_dsn: str
) -> None:
    client = gateway.http(tenant.key)
    before = event_of(client, postgres_dsn)
    assert before["cost_pico_usd"] == cost_at(CHEAP, before) > 0
    options = [f"--{name.replace('_', '-')}={rate}" for name, rate in NEW.items()]
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4)).isoformat()
    made = penstock("price", "set", "sim", *options, "--from", soon, "--json").document
    moment = dt.datetime.fromisoformat(made["effective_from"])

    def billed() -> list[dict[str, Any]]:
        events.append(event_of(client, postgres_dsn))
        return events if events[-1]["price_id"] == made["id"] else []

    events: list[dict[str, Any]] = []
    wait_for(billed, "the price is in force")
    for event in events:
        price = NEW if event["opened_at"] >= moment else CHEAP
        assert event["cost_pico_usd"] == cost_at(price, event)
    assert events[0]["price_id"] == before["price_id"], "it was told before its moment came"
    gateway.terminate()
    gateway.start()
    event = event_of(gateway.http(tenant.key), postgres_dsn)
    assert event["price_id"] == made["id"], "a restart with the same penstock.yaml changes nothing"
    assert json.loads(penstock("price", "list", "--json").out)[0]["source"] == "admin"
