"""All limits without Redis, under the policy `local`: this replica's share of each, from what was known last.

Buckets are shared out with their refill (`gateway.admit.local`), places among concurrent requests and what was left of
budgets are divided by the replicas that live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admit.bucket import Refusal, UsageVector
from gateway.admit.budget import BudgetState, BudgetTerms, Lacking, afford, spend
from gateway.admit.claim import Answer, Exceeded, Granted, Unknown
from gateway.admit.policy import BUDGET_WAIT_MS, CONCURRENCY_WAIT_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.admit.budgets import BudgetBook
    from gateway.admit.claim import Claim
    from gateway.admit.leases import Leases
    from gateway.admit.local import LocalBuckets

BUDGETS_MAX = 20_000


@dataclass(slots=True)
class _Share:
    """What was known of a budget when Redis went away, and what this replica has spent of it since, in nano-USD."""

    base: int
    own: BudgetState


class Fallback:
    """Grants claims as `BucketStore` does, from this replica's shares."""

    def __init__(self, buckets: LocalBuckets, leases: Leases, budgets: BudgetBook) -> None:
        self._buckets = buckets
        self._leases = leases
        self._budgets = budgets
        self._shares: dict[str, _Share] = {}

    def remember(self, claim: Claim, granted: Granted) -> None:
        """Keep what Redis told, to start from should it go away."""
        self._buckets.remember(claim.limits.keys, granted.levels)
        if granted.budgets:
            self._budgets.note(claim, granted.budgets)

    def forget(self, claims: Iterable[Claim | None]) -> bool:
        """Redis answers again for those who claimed: its levels count, and what it has missed is made up for.

        Others' keys may be on a node that is still away. Returns whether there is anybody left to forget.
        """
        left = False
        for claim in claims:
            if claim is None:
                continue
            left = self._buckets.forget(claim.limits.keys)
            known = () if claim.periods is None else claim.periods.redis[::2]
            if [key for key in known if self._shares.pop(key, None)]:
                self._budgets.resync_soon()
        return left or bool(self._shares)

    async def reserve(self, claim: Claim) -> Answer:
        """Take all that is claimed from this replica's shares, or nothing. Waits for nobody."""
        limits, replicas = claim.limits, self._buckets.replicas()
        states: list[BudgetState] = []
        if claim.periods is not None and claim.worst:
            paid = self._pay(claim, replicas, states)
            if not isinstance(paid, int):
                return paid
            claim.taken = paid
        for index, (limit, key) in enumerate(zip(limits.concurrency, limits.lease_keys, strict=True)):
            if self._leases.held(key) >= max(limit.requests // replicas, 1):
                spend(states, claim.taken, 0)
                held = self._buckets.levels(limits, claim.usage)
                return Refusal(len(limits.keys) + index, CONCURRENCY_WAIT_MS, held)
        levels = self._buckets.reserve(limits, claim.usage)
        if isinstance(levels, Refusal):
            spend(states, claim.taken, 0)
            return levels
        if limits.lease_keys:
            self._leases.hold(claim)
        return Granted([int(level) for level in levels], claim.taken)

    def settle_soon(self, claim: Claim, used: UsageVector, cost: int) -> None:
        """Replace what was claimed by what was used, unless that was forgotten since."""
        self._buckets.settle(claim.limits, claim.usage, used)
        self._leases.free(claim)
        if claim.periods is not None:
            known = [self._shares[key].own for key in claim.periods.redis[::2] if key in self._shares]
            spend(known, claim.taken, cost)

    def _pay(self, claim: Claim, replicas: int, states: list[BudgetState]) -> int | Answer:
        """Take from all budgets, whose states are appended to `states`, or say why not."""
        assert claim.periods is not None, "a claim on budgets"
        keys = claim.periods.redis[::2]
        unknown = [index for index, key in enumerate(keys) if not self._known(key)]
        if unknown:
            return Unknown(unknown)
        shares = [self._shares[key] for key in keys]
        terms = [
            BudgetTerms(max(term.amount - share.base, 0) // replicas, term.stops)
            for term, share in zip(claim.limits.terms, shares, strict=True)
        ]
        states += (share.own for share in shares)
        paid = afford(terms, states, claim.worst, claim.least)
        if not isinstance(paid, Lacking):
            return paid
        index = len(claim.limits.keys) + len(claim.limits.lease_keys) + paid.position
        share = shares[paid.position]
        left = claim.limits.terms[paid.position].amount - share.base - share.own.spent
        if paid.for_good and left < claim.least:  # and not only this replica's share of it
            return Exceeded(index)
        return Refusal(index, BUDGET_WAIT_MS, self._buckets.levels(claim.limits, claim.usage))

    def _known(self, key: str) -> bool:
        if key not in self._shares:
            base = self._budgets.told(key)
            if base is None:
                return False
            while len(self._shares) >= BUDGETS_MAX:
                del self._shares[next(iter(self._shares))]
            self._shares[key] = _Share(base, BudgetState(0, 0))
        return True
