"""What a granted request holds: the amounts taken from its limits, given back or corrected exactly once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from gateway.admit.bucket import NOTHING, UsageVector
from gateway.admit.budget import nano_usd
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admit.claim import Claim
    from gateway.admit.estimate import Estimate, Experience
    from gateway.domain.usage import TokenUsage

NO_COST = PicoUsd(0)


class Holder(Protocol):
    """Who granted a claim."""

    def settle_soon(self, claim: Claim, used: UsageVector, cost: int) -> None:
        """Replace what was claimed by what was used and what that cost, in nano-USD. Never blocks, never raises."""
        ...


class Reservation:
    """Held from admission to settlement. `settle` and `withdraw` never await, so nothing can cancel them."""

    __slots__ = (
        "_claim",
        "_deployment",
        "_holder",
        "_levels",
        "_settled",
        "estimate",
        "event_id",
        "experience",
        "output_allowance",
        "worst_cost",
    )

    def __init__(
        self,
        event_id: UUID,
        estimate: Estimate,
        experience: Experience,
        worst_cost: PicoUsd,
        *,
        holder: Holder | None = None,
        claim: Claim | None = None,
        deployment: Claim | None = None,
        levels: list[int] | None = None,
        output_allowance: float = math.inf,
    ) -> None:
        self.event_id = event_id
        self.estimate = estimate
        self.experience = experience
        self.worst_cost = worst_cost
        """The most that the request is expected to cost."""
        self.output_allowance = output_allowance
        """How many tokens a stream may generate before it is to be stopped; infinite: it was given what it may need."""
        self._holder = holder
        self._claim = claim
        self._deployment = deployment
        self._levels = levels
        self._settled = False

    def settle(self, used: TokenUsage, cost: PicoUsd) -> None:
        """Replace what was reserved by what was used, and by what that cost."""
        self._finish(UsageVector(1, used.uncached, used.cached, used.completion), nano_usd(cost))

    def withdraw(self) -> None:
        """Give everything back: the request was never served."""
        self._finish(NOTHING, 0)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return `x-ratelimit-{limit,remaining,reset}-…` of the tenant's tightest bucket of each unit it has.

        `reset` is the time until that bucket is full again, as a duration such as `1.5s`. A model's limits over all
        tenants are left out: how much others use of it is nobody's business.
        """
        headers: list[tuple[bytes, bytes]] = []
        levels, claim = self._levels, self._claim
        if not levels or claim is None:
            return headers
        limits = claim.limits
        for name, indexes in limits.by_unit:
            tightest = indexes[0] if len(indexes) == 1 else min(indexes, key=levels.__getitem__)
            level, bucket = levels[tightest], limits.buckets[tightest]
            reset_s = (bucket.capacity - level) / bucket.refill_per_s
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % limits.limits[tightest].per_minute),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(level, 0)),
                (b"x-ratelimit-reset-" + name, b"%.3fs" % reset_s),
            )
        return headers

    def _finish(self, used: UsageVector, cost: int) -> None:
        assert not self._settled, "a reservation settles once"
        self._settled = True
        if self._holder is None:
            return
        if self._claim is not None:
            self._holder.settle_soon(self._claim, used, cost)
        if self._deployment is not None:
            self._holder.settle_soon(self._deployment, used, 0)
