"""Prices as people write them: exact, with the same defaults as penstock.yaml, and told what is wrong with them."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.admin.prices import parse_effective_from, parse_price
from gateway.domain.config import Price
from gateway.errors import InvalidRequest
from gateway.units import PicoUsd

NOW = dt.datetime(2026, 8, 1, 12, tzinfo=dt.UTC)


def test_what_is_not_given_costs_what_it_is_a_part_of() -> None:
    rates = [PicoUsd(rate) for rate in (200_000, 200_000, 1_500_000, 1_500_000, 0)]
    assert parse_price("0.20", "1.5") == Price(*rates)
    rates = [PicoUsd(rate) for rate in (1, 0, 2, 3, 4)]
    assert parse_price(
        "0.000001", "0.000002", cached_input="0", reasoning="0.000003", request="0.000000000004"
    ) == Price(*rates)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"input": "-1"}, "input must be a plain decimal number in USD"),
        ({"input": ""}, "input must be a plain decimal number in USD"),
        ({"output": "0.0000001"}, "output is finer than 0.000001 USD per million tokens"),
        ({"output": "1000001"}, "output is too large: at most 1000000 USD"),
        ({"input": "9" * 16}, "input is too large: at most 1000000 USD"),
        ({"input": "9" * 10_000}, "input is too large: at most 1000000 USD"),
        ({"cached_input": "1,5"}, "cached_input must be a plain decimal number"),
        ({"reasoning": "NaN"}, "reasoning must be a plain decimal number"),
        ({"request": "x"}, "request must be a plain decimal number"),
    ],
)
def test_a_rate_that_cannot_be_kept_is_refused_by_name(rates: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        parse_price(**({"input": "1", "output": "1"} | rates))
    assert caught.value.param in rates


def test_a_moment_is_any_within_reason() -> None:
    assert parse_effective_from(None, NOW) is None
    assert parse_effective_from("2026-09-01", NOW) == dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
    assert parse_effective_from("7d", NOW) == NOW - dt.timedelta(days=7)
    for text, message in (("soon", "must look like"), ("1999-01-01", "must lie between"), ("2099-01-01", "2020-01-01")):
        with pytest.raises(InvalidRequest, match=message):
            parse_effective_from(text, NOW)
