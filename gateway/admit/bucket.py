"""The token bucket, pure: the reference that the Lua scripts are held against, and what limits locally without Redis.

A bucket refills continuously, so there is no window boundary at which twice the limit could pass. Its level may go
below zero when a request used more than it had reserved; refill repays that debt before anything new is admitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class UsageVector(NamedTuple):
    """What one request uses, by class: each bucket charges its own weighted sum of the four."""

    requests: float
    uncached_input_tokens: float
    cached_input_tokens: float
    output_tokens: float


NOTHING = UsageVector(0, 0, 0, 0)

Weights: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Capacity in the bucket's own unit, refill in that unit per second, and what each usage class weighs in it."""

    capacity: float
    refill_per_s: float
    weights: Weights

    def cost(self, usage: UsageVector) -> float:
        """Return what `usage` takes from this bucket."""
        w = self.weights
        return w[0] * usage[0] + w[1] * usage[1] + w[2] * usage[2] + w[3] * usage[3]

    def refilled(self, level: float, elapsed_s: float) -> float:
        """Return the level after `elapsed_s` seconds without spending; a clock step backwards is no time passing."""
        return min(self.capacity, level + max(elapsed_s, 0.0) * self.refill_per_s)

    def wait_s(self, level: float, cost: float) -> float:
        """Return the seconds after which `level` covers `cost`, 0 when it does now."""
        return max(cost - level, 0.0) / self.refill_per_s


@dataclass(frozen=True, slots=True)
class Refusal:
    """`index` is the limit that takes longest to cover the request, `wait_ms` how long that is.

    `levels` are those of each bucket, rounded down, where whoever refuses tells them.
    """

    index: int
    wait_ms: int
    levels: tuple[int, ...] = ()


def reserve(buckets: list[Bucket], levels: list[float], usage: UsageVector) -> Refusal | None:
    """Take `usage` from all levels in place, or leave them all alone and return why. Levels are already refilled."""
    refusal: Refusal | None = None
    for index, (bucket, level) in enumerate(zip(buckets, levels, strict=True)):
        cost = bucket.cost(usage)
        if level < cost:
            wait_ms = math.ceil(bucket.wait_s(level, cost) * 1000)
            if refusal is None or wait_ms > refusal.wait_ms:
                refusal = Refusal(index, wait_ms)
    if refusal is None:
        for index, bucket in enumerate(buckets):
            levels[index] -= bucket.cost(usage)
    return refusal


def settle(buckets: list[Bucket], levels: list[float], reserved: UsageVector, used: UsageVector) -> None:
    """Replace in all levels, in place, what was reserved by what was used; a level may go below zero."""
    for index, bucket in enumerate(buckets):
        level = levels[index] - (bucket.cost(used) - bucket.cost(reserved))
        levels[index] = min(bucket.capacity, level)
