"""What admission asks of the ledger and of prices, answered as a test says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.domain.budget import Spent
from gateway.domain.config import Price
from gateway.errors import BudgetUnknown
from gateway.settle.price import EffectivePrice
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from gateway.domain.budget import BudgetKey

NANO = 1_000
"""Pico-USD in a nano-USD."""


class Books:
    """Knows what was spent, the same of each budget, and what open requests may cost; or is away."""

    def __init__(self, amount: int = 0) -> None:
        self.amount = PicoUsd(amount)
        self.open = PicoUsd(0)
        self.away = False
        self.asked: list[list[BudgetKey]] = []
        self.dead: set[UUID] = set()

    async def spent(self, budgets: Sequence[BudgetKey]) -> list[Spent]:
        """Answer."""
        self.asked.append(list(budgets))
        if self.away:
            raise BudgetUnknown("Postgres is away")
        return [Spent(self.amount, self.open) for _ in budgets]

    async def reaped(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Answer."""
        return self.dead.intersection(event_ids)


@dataclass
class Prices:
    """The same price for each model, None for none."""

    effective: EffectivePrice | None = None

    def current(self, model: str) -> EffectivePrice | None:
        """Return it."""
        del model
        return self.effective


def per_request(pico_usd: int) -> EffectivePrice:
    """Return a price of the request alone."""
    free = PicoUsd(0)
    return EffectivePrice(1, Price(free, free, free, free, PicoUsd(pico_usd)))


def per_token(input_pico_usd: int, output_pico_usd: int) -> EffectivePrice:
    """Return a price of tokens alone."""
    rates = PicoUsd(input_pico_usd), PicoUsd(output_pico_usd)
    return EffectivePrice(1, Price(rates[0], rates[0], rates[1], rates[1]))
