"""Limits without Redis: the same buckets in this process, each with this replica's share of the limit.

Used only while Redis is away, under the policy `local`. Starts from the last level that Redis told, so that losing
Redis does not hand out a fresh bucket.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.admit.bucket import Bucket, Refusal, UsageVector, reserve, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.admit.policy import LimitSet

BUCKETS_MAX = 100_000


class LocalBuckets:
    """Buckets of one replica; the least recently used are forgotten above BUCKETS_MAX."""

    def __init__(self, replicas_live: Callable[[], int]) -> None:
        self._replicas_live = replicas_live
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._told: dict[str, float] = {}

    def replicas(self) -> int:
        """Return among how many replicas limits are shared out."""
        return max(self._replicas_live(), 1)

    def remember(self, keys: Sequence[str], levels: Sequence[int]) -> None:
        """Keep the levels that Redis told, to start from should it go away."""
        told = self._told
        for key, level in zip(keys, levels, strict=True):
            told[key] = level
        while len(told) > BUCKETS_MAX:
            del told[next(iter(told))]

    def forget(self, keys: Sequence[str]) -> bool:
        """Redis answers for these again: its levels count. Returns whether there are others to forget."""
        for key in keys:
            self._levels.pop(key, None)
        return bool(self._levels)

    def reserve(self, buckets: LimitSet, usage: UsageVector) -> Refusal | list[float]:
        """Take `usage` from this replica's share, or say how long to wait; returns the levels left."""
        shares, levels, now_s = self._open(buckets, usage)
        refusal = reserve(shares, levels, usage)
        if refusal is not None:
            return replace(refusal, levels=tuple(map(int, levels)))
        self._store(buckets.keys, levels, now_s)
        return levels

    def levels(self, buckets: LimitSet, usage: UsageVector) -> tuple[int, ...]:
        """Return the levels of this replica's share, as a request for `usage` meets them, rounded down."""
        return tuple(map(int, self._open(buckets, usage)[1]))

    def settle(self, buckets: LimitSet, reserved: UsageVector, used: UsageVector) -> None:
        """Replace what `reserve` took by what was used, unless that was forgotten since."""
        if any(key not in self._levels for key in buckets.keys):
            return
        shares, levels, now_s = self._open(buckets, reserved)
        settle(shares, levels, reserved, used)
        self._store(buckets.keys, levels, now_s)

    def _open(self, buckets: LimitSet, usage: UsageVector) -> tuple[list[Bucket], list[float], float]:
        replicas = self.replicas()
        now_s = time.monotonic()
        shares, levels = [], []
        for key, bucket in zip(buckets.keys, buckets.buckets, strict=True):
            # A share smaller than one request would never admit it: it may hold one, at its share of the refill.
            capacity = max(bucket.capacity / replicas, min(bucket.cost(usage), bucket.capacity))
            share = Bucket(capacity, bucket.refill_per_s / replicas, bucket.weights)
            known = self._levels.get(key)
            if known is None:  # kept also when the request is refused: from here on the level refills
                known = self._levels[key] = (self._told.get(key, bucket.capacity) / replicas, now_s)
            level, at_s = known
            shares.append(share)
            levels.append(share.refilled(level, now_s - at_s))
        self._trim()
        return shares, levels, now_s

    def _store(self, keys: Sequence[str], levels: list[float], now_s: float) -> None:
        for key, level in zip(keys, levels, strict=True):
            self._levels[key] = (level, now_s)
            self._levels.move_to_end(key)
        self._trim()

    def _trim(self) -> None:
        while len(self._levels) > BUCKETS_MAX:
            self._levels.popitem(last=False)
