"""The line of a bucket: what it may have granted by any moment, and how far above that the grants were.

A bucket of capacity C and refill r grants at most C + r x t within any t seconds. Where Redis lost its
data, or replicas limited by themselves, the published bounds allow a capacity more, and as much refill again meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate
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
    credit = _Credit(outages, start)
    for charge in ordered:
        ended, begun, lasted_s = credit.at(charge.at)
        got = refill_per_s * (charge.at - start + lasted_s)
        lowest = min(lowest, spent - got - capacity * ended)
        spent += charge.amount
        if charge.granted:
            worst = max(worst, spent - got - capacity * begun - lowest - capacity)
    return worst


class _Credit:
    """What outages allow by a moment: looked up, as a long run has many charges and many outages."""

    def __init__(self, outages: Sequence[Outage], start: float) -> None:
        counted = [outage for outage in outages if outage.to >= start]
        self._from = [max(outage.from_, start) for outage in counted]
        self._to = [outage.to for outage in counted]
        lengths = (to - from_ for from_, to in zip(self._from, self._to, strict=True))
        self._lasted_s = [0.0, *accumulate(lengths)]

    def at(self, now: float) -> tuple[int, int, float]:
        """Return how many outages had ended, how many had begun, and how many seconds of outage there had been."""
        ended, begun = bisect_left(self._to, now), bisect_right(self._from, now)
        running_s = now - self._from[ended] if begun > ended else 0.0
        return ended, begun, self._lasted_s[ended] + running_s
