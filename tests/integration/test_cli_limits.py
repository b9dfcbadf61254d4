"""`penstock limit` and the limits of `penstock key create`: every kind, as scripts and people use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.acme import make_acme

if TYPE_CHECKING:
    from tests.support.command import Penstock

ACME = ("limit", "set", "--org", "acme")


def test_a_key_is_made_with_every_kind_of_limit(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    rates = ["--input-tokens-per-minute", "5", "--output-tokens-per-minute", "6", "--concurrent-requests", "2"]
    budget = ["--budget-usd", "12.50", "--budget-period", "month", "--budget-stops-streams"]
    options = [*rates, *budget, "--max-output-tokens", "400", "--model", "qwen"]
    made = penstock("key", "create", "--team", "core", *options, "--json").document
    (rule,) = penstock("limit", "list", "--json").document
    assert (rule["level"], rule["subject_id"], rule["model"]) == ("key", made["id"], "qwen")
    assert (rule["input_tokens_per_minute"], rule["output_tokens_per_minute"]) == (5, 6)
    assert (rule["concurrent_requests"], rule["output_tokens_max"]) == (2, 400)
    assert (rule["budget_month_usd"], rule["budget_day_usd"], rule["budget_stops_streams"]) == ("12.5", None, True)


def test_values_are_set_shown_and_taken_away_one_by_one(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    penstock(*ACME, "--tokens-per-minute", "9000", "--tokens-burst", "20000", "--concurrent-requests", "1000")
    penstock(*ACME, "--budget-usd", "25", "--budget-period", "day")
    penstock(*ACME, "--budget-usd", "0.5", "--budget-period", "week")
    penstock(*ACME, "--budget-usd", "2", "--budget-period", "session")
    budgets = "25 USD a day (0 spent); 0.5 USD a week (0 spent); 2 USD a session"
    allowed = f"9,000 tokens a minute (20,000 at once); 1,000 concurrent requests; {budgets}"
    header, line = penstock("limit", "list").out.splitlines()
    assert header.split() == ["organization", "level", "subject", "model", "allows"]
    assert allowed in line
    (listed,) = penstock("limit", "list", "--json").document
    assert (listed["budget_session_usd"], listed["spent_session_usd"], listed["spent_day_usd"]) == ("2", None, "0")
    penstock(*ACME, "--budget-usd", "none", "--budget-period", "session")
    rule = penstock(*ACME, "--budget-usd", "none", "--budget-period", "day", "--json").document
    assert (rule["budget_day_usd"], rule["budget_week_usd"], rule["budget_session_usd"]) == (None, "0.5", None)
    for taken in (["--tokens-per-minute", "none"], ["--budget-usd", "none", "--budget-period", "week"]):
        assert penstock(*ACME, *taken).code == 0
    said = penstock(*ACME, "--concurrent-requests", "none").out
    assert said == "organization acme has no limit left here\n"
    assert "no limits" in penstock("limit", "list").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ACME, "--budget-usd", "5"], "--budget-usd needs --budget-period day, week, month or session"),
        ([*ACME, "--budget-period", "day"], "--budget-period needs --budget-usd (or '--budget-usd none'"),
        ([*ACME, "--budget-usd", "5", "--budget-period", "year"], "value for '--budget-period': 'year' is not one of"),
        ([*ACME, "--budget-usd", "-5", "--budget-period", "day"], "--budget-usd must be a plain decimal number in USD"),
        ([*ACME, "--budget-usd", "0.0000000001", "--budget-period", "day"], "--budget-usd is finer than 0.000000001"),
        ([*ACME, "--budget-stops-streams"], "budget_stops_streams needs a budget"),
        ([*ACME, "--concurrent-requests", "0"], "concurrent_requests must be 1 to 1,000,000"),
        ([*ACME, "--max-output-tokens", "x"], "'--max-output-tokens' must be a whole number, or 'none'"),
        ([*ACME, "--input-tokens-burst", "5"], "input_tokens_burst needs input_tokens_per_minute"),
        (
            ["limit", "set", "--model", "qwen", "--tokens-per-minute", "5"],
            "limits over all tenants are in penstock.yaml, under models.qwen.limits",
        ),
        (
            ["key", "create", "--team", "core", "--budget-usd", "none", "--budget-period", "day"],
            "'--budget-usd none' takes a limit away, and a new key has none: leave it out",
        ),
        (["key", "create", "--team", "core", "--max-output-tokens", "None"], "'--max-output-tokens none' takes"),
        (["key", "create", "--team", "core", "--tokens-per-minute", "x"], "must be a whole number\n"),
        (["key", "create", "--team", "core", "--model", "m"], "--model says which model the limits are of"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(penstock: Penstock, arguments: list[str], message: str) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    ended = penstock(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
