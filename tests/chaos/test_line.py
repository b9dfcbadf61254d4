"""The line of a bucket, by example: what keeps to it, what does not, and what an outage allows."""

from __future__ import annotations

import pytest

from tests.chaos.line import Charge, Outage, excess, outages_of


def grants(*times: float, amount: float = 1.0) -> list[Charge]:
    """Return grants of equal amounts."""
    return [Charge(at, amount, granted=True) for at in times]


def test_a_full_bucket_and_its_refill_may_be_spent() -> None:
    charges = grants(*[0.0] * 5, 1.0, 2.0, 3.0)
    assert excess(charges, 5, 1.0, []) == pytest.approx(0)


def test_one_more_is_one_too_many_wherever_the_window_begins() -> None:
    assert excess(grants(*[0.0] * 6), 5, 1.0, []) == pytest.approx(1)
    assert excess(grants(0.0, *[100.0] * 6), 5, 1.0, []) == pytest.approx(1)


def test_a_pause_fills_the_bucket_and_no_more() -> None:
    assert excess(grants(*[0.0] * 5, *[1000.0] * 5), 5, 1.0, []) == pytest.approx(0)
    assert excess(grants(*[0.0] * 5, *[2.0] * 3), 5, 1.0, []) == pytest.approx(1)


def test_what_is_given_back_may_be_granted_again() -> None:
    again = [*grants(0.0, amount=5), Charge(0.5, -4.0, granted=False), *grants(0.5, amount=4)]
    assert excess(again, 5, 0.001, []) == pytest.approx(0, abs=0.01)
    assert excess([*again, *grants(0.5, amount=1)], 5, 0.001, []) == pytest.approx(1, abs=0.01)


def test_what_is_used_beyond_its_estimate_is_a_debt_and_no_grant() -> None:
    charges = [*grants(0.0, amount=5), Charge(1.0, 10.0, granted=False)]
    assert excess(charges, 5, 1.0, []) == pytest.approx(0)
    assert excess([*charges, *grants(2.0, amount=1)], 5, 1.0, []) == pytest.approx(9)


def test_an_outage_allows_one_capacity_more_and_its_refill_twice() -> None:
    outage = Outage(1.0, 2.0, lost=True)
    within = grants(*[0.0] * 5, *[1.5] * 6)
    assert excess(within, 5, 1.0, [outage]) <= 0
    assert excess([*within, *grants(*[1.5] * 2)], 5, 1.0, [outage]) == pytest.approx(1)
    assert excess(grants(*[0.0] * 6), 5, 1.0, [outage]) == pytest.approx(1), "not before it"


def test_outages_that_overlap_are_one() -> None:
    found = outages_of([(10.0, 11.0)], [(11.5, 12.0), (20.0, 21.0)], 0.5)
    assert found == [Outage(9.5, 12.5, lost=True), Outage(19.5, 21.5, lost=False)]
