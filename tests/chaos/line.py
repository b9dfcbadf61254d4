"""The line of a bucket: what it may have granted by any moment, and how far above that the grants were.

A bucket of capacity C and refill r grants at most C + r x t within any t seconds. Where Redis lost its
data, or replicas limited by themselves, the published bounds allow a capacity more, and as much refill again meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Charge(NamedTuple):
    """What was taken from a bucket (or given back: negative) at a time in seconds. Only what was granted is judged."""

    at: float
    amount: float
    granted: bool


@dataclass(frozen=True)
class Outage:
    """A span in which buckets were lost, or some replica limited by itself. `lost`: what Redis held was lost in it."""

    from_: float
    to: float
    lost: bool

    def overlap(self, from_: float, to: float) -> float:
        """Return how many seconds of it lie between two moments."""
        return max(min(self.to, to) - max(self.from_, from_), 0.0)


def outages_of(
    losses: Iterable[tuple[float, float]], away: Iterable[tuple[float, float]], margin_s: float
) -> list[Outage]:
    """Return the spans that overlap as one each, in order; `margin_s` is added at both ends."""
    spans = [(from_ - margin_s, to + margin_s, True) for from_, to in losses]
    spans += [(from_ - margin_s, to + margin_s, False) for from_, to in away]
    found: list[Outage] = []
    for from_, to, lost in sorted(spans):
        if found and from_ <= found[-1].to:
            last = found.pop()
            found.append(Outage(last.from_, max(last.to, to), last.lost or lost))
        else:
            found.append(Outage(from_, to, lost))
    return found


def excess(charges: Sequence[Charge], capacity: float, refill_per_s: float, outages: Sequence[Outage]) -> float:
    """Return how far the grants of any window were above the bucket's line at most; not positive: never.

    The level of a bucket that begins full is `capacity - max over t0 <= t of (S(t) - A(t)) - (S(t0) - A(t0))`, with S
    what was charged and A what the bucket got until then: the reflection of a queue's load (Lindley, 1952). A window
    that an outage touches is allowed what that outage allows.
    """
    spent, worst, lowest = 0.0, float("-inf"), 0.0
    ordered = sorted(charges, key=lambda charge: (charge.at, charge.granted))
    start = ordered[0].at if ordered else 0.0
    for charge in ordered:
        got = refill_per_s * (charge.at - start)
        got += sum(refill_per_s * outage.overlap(start, charge.at) for outage in outages)
        over = capacity * sum(start <= outage.to < charge.at for outage in outages)
        begun = capacity * sum(start <= outage.to and outage.from_ <= charge.at for outage in outages)
        lowest = min(lowest, spent - got - over)
        spent += charge.amount
        if charge.granted:
            worst = max(worst, spent - got - begun - lowest - capacity)
    return worst
