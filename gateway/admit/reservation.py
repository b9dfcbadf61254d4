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
        """Return what the answer tells of the tenant's rates, as `LimitSet.headers` does.

        A model's limits over all tenants are left out: how much others use of it is nobody's business.
        """
        levels, claim = self._levels, self._claim
        return claim.limits.headers(levels) if levels and claim is not None else []

    def _finish(self, used: UsageVector, cost: int) -> None:
        assert not self._settled, "a reservation settles once"
        self._settled = True
        if self._holder is None:
            return
        if self._claim is not None:
            self._holder.settle_soon(self._claim, used, cost)
        if self._deployment is not None:
            self._holder.settle_soon(self._deployment, used, 0)
