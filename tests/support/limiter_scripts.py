"""The limiter's scripts called one by one on a real Redis, and what the Python reference makes of the same calls.

Redis's own clock is the only one in the scripts. So time passes here by moving the moments that buckets were last
written at into the past (or the future: a clock that steps back), and what a script took for "now" is read from what
it wrote. Where it wrote nothing, "now" lies between two TIMEs asked for in the same transaction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import uuid4

import msgspec

from gateway.admit.bucket import NOTHING, Bucket, Refusal, UsageVector, reserve, settle
from gateway.admit.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

RESERVATION_MS = 600_000
WITHDRAWAL_MS = 60_000


class Written(NamedTuple):
    """A bucket as it is stored: its level, when that was (milliseconds), and how long the key lives from now on."""

    level: float
    at_ms: float
    ttl_ms: int


class Seen(NamedTuple):
    """One script call: what it answered, Redis's clock around it, and what the keys held after it."""

    answer: Any
    before_ms: float
    after_ms: float
    buckets: list[Written | None]
    reservation: bytes | None
    reservation_ttl_ms: int


class LimiterScripts:
    """reserve.lua and settle.lua over keys of their own, as `gateway.admit.bucket_store` calls them."""

    def __init__(self, client: redis.Redis, buckets: Sequence[Bucket]) -> None:
        self._client = client
        self._prefix = f"pst:{{{uuid4().hex}}}"
        self._keys = [f"{self._prefix}:b:{number}" for number in range(len(buckets))]
        self._spec = msgspec.json.encode([[each.capacity, each.refill_per_s, *each.weights] for each in buckets])
        self._reserve, self._settle = (self._load(name) for name in ("reserve", "settle"))

    def _load(self, name: str) -> str:
        script = Script.load(name)
        assert self._client.script_load(script.source) == script.sha1
        return script.sha1

    def reserve(self, event: str, usage: UsageVector) -> Seen:
        """Reserve `usage` for an event."""
        return self._run(event, self._reserve, RESERVATION_MS, self._spec, msgspec.json.encode(usage))

    def settle(self, event: str, used: UsageVector) -> Seen:
        """Settle an event that was granted."""
        return self._run(event, self._settle, self._spec, msgspec.json.encode(used), 0)

    def withdraw(self, event: str) -> Seen:
        """Withdraw an event, whether or not it has reached Redis."""
        return self._run(event, self._settle, self._spec, msgspec.json.encode(NOTHING), WITHDRAWAL_MS)

    def elapse(self, elapsed_ms: float) -> None:
        """Let time pass for all buckets: move what they were last written at back by `elapsed_ms`."""
        for key in self._keys:
            stored = cast("bytes | None", self._client.get(key))
            if stored is not None:
                level, at_ms = stored.split()
                self._client.set(key, b"%b %b" % (level, repr(float(at_ms) - elapsed_ms).encode()), keepttl=True)

    def _run(self, event: str, sha1: str, *arguments: bytes | int) -> Seen:
        reservation = f"{self._prefix}:r:{event}"
        pipeline = self._client.pipeline(transaction=True)
        pipeline.time()
        pipeline.evalsha(sha1, len(self._keys) + 1, reservation, *self._keys, *arguments)
        pipeline.time()
        for key in (reservation, *self._keys):
            pipeline.get(key)
            pipeline.pttl(key)
        before, answer, after, reserved, reservation_ttl_ms, *rest = pipeline.execute()
        buckets = [_written(text, ttl_ms) for text, ttl_ms in zip(rest[::2], rest[1::2], strict=True)]
        return Seen(answer, _ms(before), _ms(after), buckets, reserved, reservation_ttl_ms)


def _written(text: bytes | None, ttl_ms: int) -> Written | None:
    if text is None:
        return None
    level, at_ms = text.split()
    return Written(float(level), float(at_ms), ttl_ms)


def _ms(time: tuple[int, int]) -> float:
    return time[0] * 1000 + time[1] / 1000


@dataclass
class Reference:
    """What Redis must hold, by the pure functions of `gateway.admit.bucket`. `taken` is None for what was withdrawn."""

    buckets: list[Bucket]
    stored: list[tuple[float, float] | None] = field(default_factory=list)
    taken: dict[str, UsageVector | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored = [None] * len(self.buckets)

    def levels(self, now_ms: float) -> list[float]:
        """Return the refilled levels at `now_ms`."""
        return [
            bucket.capacity if stored is None else bucket.refilled(stored[0], (now_ms - stored[1]) / 1000)
            for bucket, stored in zip(self.buckets, self.stored, strict=True)
        ]

    def reserve(self, event: str, usage: UsageVector, now_ms: float) -> Refusal | list[float]:
        """Reserve at `now_ms`; returns the levels left."""
        levels = self.levels(now_ms)
        refusal = reserve(self.buckets, levels, usage)
        if refusal is None:
            self.taken[event] = usage
            self.stored = [(level, now_ms) for level in levels]
        return refusal or levels

    def refusal(self, usage: UsageVector, now_ms: float) -> Refusal | None:
        """Return what a reservation at `now_ms` would be told, without making it."""
        return reserve(self.buckets, self.levels(now_ms), usage)

    def settle(self, event: str, used: UsageVector, now_ms: float) -> list[float]:
        """Settle a reservation at `now_ms`; returns the levels after it."""
        reserved = self.taken.pop(event)
        assert reserved is not None, "only what was granted is settled"
        levels = self.levels(now_ms)
        settle(self.buckets, levels, reserved, used)
        self.stored = [(level, now_ms) for level in levels]
        return levels

    def elapse(self, elapsed_ms: float) -> None:
        """Let time pass."""
        self.stored = [stored and (stored[0], stored[1] - elapsed_ms) for stored in self.stored]

    def ttl_ms(self, index: int, level: float) -> int:
        """Return how long a bucket of this level is kept: until it is full, and a minute."""
        bucket = self.buckets[index]
        return min(math.ceil((bucket.capacity - level) / bucket.refill_per_s * 1000) + 60_000, 10**12)
