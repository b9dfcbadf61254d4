"""All limits in Redis: what the scripts are called with, and what their answers mean."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.claim import Answer, Claim, Exceeded, Granted, Unknown
from gateway.admit.leases import Leases
from gateway.admit.script import Script
from gateway.admit.script_call import ScriptFailed
from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    from gateway.admit.redis_cluster import RedisCluster
    from gateway.admit.redis_single import RedisSingle
    from gateway.observe.metrics import Metrics
    from gateway.storage.redis_link import Command

WITHDRAWAL_MS = 60_000


class BucketStore:
    """Asks Redis; while it is away `available` is False and every call fails at once."""

    def __init__(self, redis: RedisSingle | RedisCluster, *, reservation_ttl_s: float, metrics: Metrics) -> None:
        self.redis = redis
        self._reserve = Script.load("reserve")
        self._settle = Script.load("settle")
        self.reservation_ttl_s = reservation_ttl_s
        self._ttl_ms = int(reservation_ttl_s * 1000)
        self.leases = Leases(redis)
        metrics.leases_held.set_function(lambda: len(self.leases))

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self.redis.available

    async def reserve(self, claim: Claim) -> Answer:
        """Take all that is claimed, or nothing. Repeating it with the same event id changes nothing.

        Raises:
            LimiterUnavailable: Redis did not answer in time; whether it took anything is unknown, and a withdrawal
                is queued, so nothing stays taken.
        """
        limits = claim.limits
        arguments: Command = (
            limits.key_count,
            limits.reservations + claim.event_id,
            *limits.fixed_keys,
            *claim.budget_keys,
            self._ttl_ms,
            limits.spec_json,
            msgspec.json.encode(claim.usage),
        )
        if limits.terms_json is not None:
            wanted = msgspec.json.encode((claim.worst, claim.least))
            arguments += (claim.event_id, limits.terms_json, wanted)
        asked = self.redis.call(self._reserve, arguments)
        try:
            answer = await asked
        except ScriptFailed:  # it reads everything before it writes, so nothing was taken
            raise
        except (LimiterUnavailable, asyncio.CancelledError):
            self.withdraw_soon(claim)
            raise
        if answer[0] == 1:
            if limits.terms_json is None:
                return Granted(answer[1:])
            return self._granted(claim, answer)
        return _refused(claim, answer)

    def settle_soon(self, claim: Claim, used: UsageVector, cost: int) -> None:
        """Replace what was claimed by what was used and what that cost, in nano-USD. Never blocks, never raises."""
        self._send(claim, used, cost, 0)

    def withdraw_soon(self, claim: Claim) -> None:
        """Give everything back, also when the claim has yet to reach Redis."""
        self._send(claim, NOTHING, 0, WITHDRAWAL_MS)

    async def run(self) -> None:
        """Watch over Redis until cancelled."""
        await self.redis.run()

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines; the rest is left to the reservations' expiry."""
        await self.redis.close()

    async def check(self) -> None:
        """Tell how Redis is set up, where that puts limits at risk."""
        await self.redis.check()

    def _granted(self, claim: Claim, answer: list[int]) -> Granted:
        if claim.limits.lease_keys:
            self.leases.hold(claim)
        money = 1 + len(claim.limits.keys)
        return Granted(answer[1:money], answer[money], answer[money + 1 :])

    def _send(self, claim: Claim, used: UsageVector, cost: int, memory_ms: int) -> None:
        limits = claim.limits
        arguments: Command = (
            limits.key_count,
            limits.reservations + claim.event_id,
            *limits.fixed_keys,
            *claim.budget_keys,
            limits.spec_json,
            msgspec.json.encode(used),
            memory_ms,
        )
        if limits.terms_json is not None:
            arguments += (claim.event_id, len(limits.lease_keys), cost)
            self.leases.free(claim)
        self.redis.send_soon(self._settle, arguments, self.reservation_ttl_s)


def _refused(claim: Claim, answer: list[int]) -> Answer:
    code, index, *rest = answer
    if code == -2:
        first = 1 + len(claim.limits.keys) + len(claim.limits.lease_keys)
        return Unknown([each - first for each in (index, *rest)])
    if code == -1:
        return Exceeded(index - 1)
    if not index:
        raise LimiterUnavailable("the reservation was withdrawn before it arrived")
    return Refusal(index - 1, rest[0], tuple(rest[1:]))
