"""The buckets in Redis: what the scripts are called with, and what their answers mean."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.script import Script
from gateway.admit.script_call import ScriptFailed
from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    from gateway.admit.policy import BucketSet
    from gateway.admit.redis_cluster import RedisCluster
    from gateway.admit.redis_single import RedisSingle
    from gateway.observe.metrics import Metrics
    from gateway.storage.redis_link import Command

WITHDRAWAL_MS = 60_000


@dataclass(frozen=True, slots=True)
class Granted:
    """Levels left in each bucket, rounded down."""

    levels: list[int]


class BucketStore:
    """Asks Redis; while it is away `available` is False and every call fails at once."""

    def __init__(self, redis: RedisSingle | RedisCluster, *, reservation_ttl_s: float, metrics: Metrics) -> None:
        del metrics
        self.redis = redis
        self._reserve = Script.load("reserve")
        self._settle = Script.load("settle")
        self._reservation_ttl_s = reservation_ttl_s
        self._ttl_ms = int(reservation_ttl_s * 1000)

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self.redis.available

    async def reserve(self, event_id: str, buckets: BucketSet, usage: UsageVector) -> Granted | Refusal:
        """Take `usage` from all buckets or from none. Repeating it with the same event id changes nothing.

        Raises:
            LimiterUnavailable: Redis did not answer in time; whether it took anything is unknown, and a withdrawal
                is queued, so nothing stays taken.
        """
        key = buckets.reservation_key(event_id)
        asked = self.redis.call(
            self._reserve,
            (
                len(buckets.keys) + 1,
                key,
                *buckets.keys,
                self._ttl_ms,
                buckets.spec_json,
                msgspec.json.encode(usage),
            ),
        )
        try:
            answer = await asked
        except ScriptFailed:  # it reads everything before it writes, so nothing was taken
            raise
        except (LimiterUnavailable, asyncio.CancelledError):
            self.withdraw_soon(event_id, buckets)
            raise
        if answer[0] == 1:
            return Granted(answer[1:])
        if answer[1] == 0:
            raise LimiterUnavailable("the reservation was withdrawn before it arrived")
        return Refusal(answer[1] - 1, answer[2])

    def settle_soon(self, event_id: str, buckets: BucketSet, used: UsageVector) -> None:
        """Replace a reservation by what was used, in the background; never blocks, never raises."""
        self._send(buckets.reservation_key(event_id), buckets, used, 0)

    def withdraw_soon(self, event_id: str, buckets: BucketSet) -> None:
        """Give everything back, also when the reservation has yet to reach Redis."""
        self._send(buckets.reservation_key(event_id), buckets, NOTHING, WITHDRAWAL_MS)

    async def run(self) -> None:
        """Watch over Redis until cancelled."""
        await self.redis.run()

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines; the rest is left to the reservations' expiry."""
        await self.redis.close()

    async def check(self) -> None:
        """Tell how Redis is set up, where that puts limits at risk."""
        await self.redis.check()

    def _send(self, key: str, buckets: BucketSet, used: UsageVector, memory_ms: int) -> None:
        arguments: Command = (
            len(buckets.keys) + 1,
            key,
            *buckets.keys,
            buckets.spec_json,
            msgspec.json.encode(used),
            memory_ms,
        )
        self.redis.send_soon(self._settle, arguments, self._reservation_ttl_s)
