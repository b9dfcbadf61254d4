"""What a rule may say: every value within its bounds, money exact, and removal told apart from leaving alone."""

from __future__ import annotations

import pytest

from gateway.admin.limit_values import (
    BUDGET_MAX,
    COLUMNS,
    CONCURRENT_REQUESTS_MAX,
    LIMIT_MAX,
    OUTPUT_TOKENS_MAX,
    REMOVED,
    LimitValues,
    budget_amount,
)
from gateway.errors import InvalidRequest

HIGHEST = {"concurrent_requests": CONCURRENT_REQUESTS_MAX, "output_tokens_max": OUTPUT_TOKENS_MAX}
COUNTS = [name for name in COLUMNS if not name.startswith("budget_")]
BUDGETS = [name for name in COLUMNS if name.endswith("_pico_usd")]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_from_one_to_their_bound(name: str) -> None:
    highest = HIGHEST.get(name, LIMIT_MAX)
    assert LimitValues.of({name: 1}).given() == {name: 1}
    assert LimitValues.of({name: highest})
    for value in (0, -1, highest + 1):
        with pytest.raises(InvalidRequest, match=f"{name} must be 1 to {highest:,}"):
            LimitValues.of({name: value})


@pytest.mark.parametrize("name", BUDGETS)
def test_budgets_are_from_nothing_to_their_bound(name: str) -> None:
    assert LimitValues.of({name: 0}).given() == {name: 0}
    assert LimitValues.of({name: BUDGET_MAX})
    for value in (-1, BUDGET_MAX + 1):
        with pytest.raises(InvalidRequest, match=f"{name} must be 0 to"):
            LimitValues.of({name: value})


def test_what_is_left_alone_is_not_given_and_what_is_removed_is() -> None:
    assert not LimitValues()
    assert LimitValues(budget_stops_streams=False).given() == {"budget_stops_streams": False}
    assert LimitValues(concurrent_requests=REMOVED, output_tokens_max=5).given() == {
        "concurrent_requests": None,
        "output_tokens_max": 5,
    }


def test_a_rate_takes_its_burst_with_it() -> None:
    assert LimitValues(tokens_per_minute=REMOVED).given() == {"tokens_per_minute": None, "tokens_burst": None}
    assert LimitValues(tokens_burst=REMOVED).given() == {"tokens_burst": None}


@pytest.mark.parametrize(
    ("text", "pico_usd"),
    [
        ("0", 0),
        ("25.50", 25_500_000_000_000),
        ("0.000000001", 1000),
        (" 5000000 ", BUDGET_MAX),
        ("1.1000000000", 11 * 10**11),
    ],
)
def test_a_budget_is_exact(text: str, pico_usd: int) -> None:
    assert budget_amount(text, "--budget-usd") == pico_usd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a plain decimal number in USD"),
        ("-1", "must be a plain decimal number in USD"),
        ("1e3", "must be a plain decimal number in USD"),
        ("1,5", "must be a plain decimal number in USD"),
        ("inf", "must be a plain decimal number in USD"),
        ("0.0000000001", "is finer than 0.000000001 USD"),
        ("5000000.01", "is too large: at most 5000000 USD"),
        ("9" * 5000, "is too large: at most 5000000 USD"),
    ],
)
def test_what_is_no_budget(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^--budget-usd {message}"):
        budget_amount(text, "--budget-usd")
