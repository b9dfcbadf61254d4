"""Budgets, pure: what a request may take of them, the reference that the Lua scripts are held against; and periods.

A budget has what settled requests cost (`spent`) and what those in flight may cost at most (`reserved`). Money in the
limiter is integer nano-USD, rounded up: a script's numbers are exact up to 2^53 only, nine million US dollars.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import NamedTuple

from gateway.domain.budget import LEDGER_START
from gateway.domain.principal import BudgetPeriod
from gateway.units import PicoUsd

PICO_USD_PER_NANO_USD = 1_000
NANO_USD_MAX = 2**53 - 1
"""Amounts above it count as this much."""


@dataclass(slots=True)
class BudgetState:
    """What is known of a budget, in nano-USD."""

    spent: int
    reserved: int


class BudgetTerms(NamedTuple):
    """A budget's amount in nano-USD, and whether a stream may be given what is left of it.

    `kept_ms`: for how long its counter is kept after its last use; 0: until a time that it was given when it was begun.
    """

    amount: int
    stops: bool
    kept_ms: int = 0

    def told(self) -> tuple[int, ...]:
        """Return them as reserve.lua reads them."""
        return (self.amount, int(self.stops), self.kept_ms) if self.kept_ms else (self.amount, int(self.stops))


class Lacking(NamedTuple):
    """`position` is the budget that cannot pay; `for_good`: not even once others' reservations are back."""

    position: int
    for_good: bool


def afford(terms: list[BudgetTerms], states: list[BudgetState], worst: int, least: int) -> int | Lacking:
    """Take what a request may cost from all budgets in place; or leave them alone and return which lacks.

    Args:
        terms: of each budget.
        states: of each budget, in the same order.
        worst: nano-USD that the request may cost at most. What costs nothing needs no budget.
        least: nano-USD that it must be given where a budget gives it what is left: `worst` for what is no stream.

    Returns:
        What was taken of each: `worst`, or what was left of a budget that stops streams.
    """
    if not worst:
        return 0
    left = [term.amount - state.spent - state.reserved for term, state in zip(terms, states, strict=True)]
    take = max(min([worst, *(room for room, term in zip(left, terms, strict=True) if term.stops)]), least)
    scarce = -1
    for index, (term, state) in enumerate(zip(terms, states, strict=True)):
        if state.spent + take > term.amount:
            return Lacking(index, for_good=True)
        if scarce < 0 and take > left[index]:
            scarce = index
    if scarce >= 0:
        return Lacking(scarce, for_good=False)
    for state in states:
        state.reserved += take
    return take


def spend(states: list[BudgetState], taken: int, cost: int) -> None:
    """Replace in all budgets, in place, what was taken by what the request cost, in nano-USD."""
    for state in states:
        state.reserved = max(state.reserved - taken, 0)
        state.spent += cost


def nano_usd(amount: PicoUsd) -> int:
    """Return an amount in nano-USD, rounded up and bounded."""
    return min(-(-amount // PICO_USD_PER_NANO_USD), NANO_USD_MAX)


def pico_usd(amount: int) -> PicoUsd:
    """Return an amount of nano-USD."""
    return PicoUsd(amount * PICO_USD_PER_NANO_USD)


def period_start(period: BudgetPeriod, day: dt.date) -> dt.datetime:
    """Return when the period began that a day (in UTC) lies in; for sessions LEDGER_START."""
    if period is BudgetPeriod.SESSION:
        return LEDGER_START
    if period is BudgetPeriod.WEEK:
        day -= dt.timedelta(days=day.weekday())
    elif period is BudgetPeriod.MONTH:
        day = day.replace(day=1)
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
