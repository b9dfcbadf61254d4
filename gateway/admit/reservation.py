"""What a granted request holds: the amounts taken from its buckets, given back or corrected exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admit.bucket import NOTHING, UsageVector
from gateway.admit.bucket_store import BucketStore
from gateway.admit.local import LocalBuckets
from gateway.domain.principal import LimitUnit
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admit.estimate import Estimate, Experience
    from gateway.admit.policy import BucketSet
    from gateway.domain.usage import TokenUsage

NO_COST = PicoUsd(0)

_UNITS = tuple((unit, unit.value.encode()) for unit in LimitUnit)


class Reservation:
    """Held from admission to settlement. `settle` and `withdraw` never await, so nothing can cancel them."""

    __slots__ = (
        "_buckets",
        "_levels",
        "_settled",
        "_taken",
        "_via",
        "allowance",
        "estimate",
        "event_id",
        "experience",
        "worst_cost",
    )

    def __init__(
        self,
        event_id: UUID,
        buckets: BucketSet,
        estimate: Estimate,
        taken: UsageVector,
        levels: list[int],
        via: BucketStore | LocalBuckets | None,
        experience: Experience,
        *,
        worst_cost: PicoUsd = NO_COST,
        allowance: PicoUsd | None = None,
    ) -> None:
        self.event_id = event_id
        self.estimate = estimate
        self.experience = experience
        self.worst_cost = worst_cost
        """The most that the request is expected to cost."""
        self.allowance = allowance
        """What a stream may cost before it is to be stopped; None: it was given what it may need."""
        self._buckets = buckets
        self._taken = taken
        self._levels = levels
        self._via = via
        self._settled = False

    def settle(self, used: TokenUsage, cost: PicoUsd) -> None:
        """Replace what was reserved by what was used, and by what that cost."""
        del cost
        self._finish(UsageVector(1, used.uncached, used.cached, used.completion))

    def withdraw(self) -> None:
        """Give everything back: the request was never served."""
        self._finish(NOTHING)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of the tightest bucket of each unit.

        `reset` is the time until that bucket is full again, as a duration such as `1.5s`.
        """
        headers: list[tuple[bytes, bytes]] = []
        if not self._levels:
            return headers
        buckets = self._buckets
        for unit, name in _UNITS:
            tightest = -1
            for index, limit in enumerate(buckets.limits):
                if limit.unit is unit and (tightest < 0 or self._levels[index] < self._levels[tightest]):
                    tightest = index
            if tightest < 0:
                continue
            level, bucket = self._levels[tightest], buckets.buckets[tightest]
            reset_s = (bucket.capacity - level) / bucket.refill_per_s
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % buckets.limits[tightest].per_minute),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(level, 0)),
                (b"x-ratelimit-reset-" + name, b"%.3fs" % reset_s),
            )
        return headers

    def _finish(self, used: UsageVector) -> None:
        assert not self._settled, "a reservation settles once"
        self._settled = True
        if isinstance(self._via, BucketStore):
            self._via.settle_soon(self.event_id.hex, self._buckets, used)
        elif isinstance(self._via, LocalBuckets):
            self._via.settle(self._buckets, self._taken, used)
