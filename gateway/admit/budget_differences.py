"""By how much budgets' counters are wrong, told from several readings of Redis around sums of the ledger; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admit.budget_counters import Correction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.admit.budget import BudgetState
    from gateway.admit.budget_counters import Reading
    from gateway.domain.budget import BudgetKey


class Differences:
    """What several rounds found, each of which read Redis, summed up the ledger, and read Redis again.

    Where a sum lies between the two readings, nothing is amiss, else they lack the difference to the nearer one. The
    smallest of all rounds counts, and only when all point the same way.

    Of what is held for requests that were open when the budget was begun as much may stay as the ledger knows to be
    open beside those that Redis knows one by one: by the round that leaves most, since what is taken for spent too
    early refuses for good.
    """

    def __init__(self) -> None:
        self._found: dict[BudgetKey, list[int]] = {}
        self._mended: dict[BudgetKey, int] = {}
        self._rebuilt: dict[BudgetKey, int] = {}
        self._older: dict[BudgetKey, int] = {}
        self._rounds = 0

    def add(
        self,
        before: Mapping[BudgetKey, Reading],
        sums: Mapping[BudgetKey, BudgetState],
        after: Mapping[BudgetKey, Reading],
    ) -> None:
        """Add a round. `after` has no budget that the others lack; what it lacks itself has gone from Redis."""
        self._rounds += 1
        for budget, seen in after.items():
            was, ledger = before[budget], sums[budget]
            self._found.setdefault(budget, []).append(_beyond(ledger.spent + ledger.reserved, was.total, seen.total))
            self._mended.setdefault(budget, was.mended)
            self._rebuilt[budget] = seen.rebuilt
            self._older[budget] = max(self._older.get(budget, 0), ledger.reserved - min(was.own, seen.own))

    def wrong(self) -> dict[BudgetKey, int]:
        """Return what to add to each counter in nano-USD; 0 where only what requests of before hold has ended."""
        agreed = {budget: _agreed(each) for budget, each in self._found.items() if len(each) == self._rounds}
        return {budget: nano for budget, nano in agreed.items() if nano or self._rebuilt[budget] > self._older[budget]}

    def corrections(self, vain: Mapping[BudgetKey, Sequence[str]]) -> dict[BudgetKey, Correction]:
        """Return how to correct what is wrong; `vain` is what dead requests hold of each, as "event amount"."""
        corrections: dict[BudgetKey, Correction] = {}
        for budget, nano in self.wrong().items():
            held = list(vain.get(budget, ()))
            dead = sum(int(each.split()[1]) for each in held)
            corrections[budget] = Correction(nano, self._mended[budget], held, self._older[budget] + dead)
        return corrections


def _beyond(total: int, before: int, after: int) -> int:
    """Return by how much `total` lies outside of two readings: what is to be added to them."""
    low, high = min(before, after), max(before, after)
    return min(total - low, 0) or max(total - high, 0)


def _agreed(differences: Sequence[int]) -> int:
    """Return the smallest difference, 0 unless all point the same way."""
    if all(each > 0 for each in differences):
        return min(differences, default=0)
    if all(each < 0 for each in differences):
        return max(differences, default=0)
    return 0
