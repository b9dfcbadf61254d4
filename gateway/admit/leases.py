"""Places among concurrent requests that this replica holds: renewed together, and counted while Redis is away.

A lease lapses in Redis when nobody renews it for LEASE_MS, as when its replica died. Renewing makes it anew where
Redis has lost it, so that after a wipe no more than RENEW_S pass until all that run are counted again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.admit.policy import LEASE_MS
from gateway.admit.script import Script
from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.admit.claim import Claim
    from gateway.storage.redis_link import Command

RENEW_S = 10.0
RENEW_PLACES_MAX = 500
"""Places renewed by one call: few enough that others wait less than a millisecond for it."""

_TICK_S = 1.0
_RELEASE_LASTS_S = LEASE_MS / 1000


class Redis(Protocol):
    """What leases need of Redis."""

    @property
    def available(self) -> bool: ...

    def call(self, script: Script, arguments: Command) -> asyncio.Future[Any]: ...

    def send_soon(self, script: Script, arguments: Command, lasts_s: float) -> None: ...


class Leases:
    """All claims of requests in flight that hold a place somewhere."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = Script.load("renew")
        self._claims: set[Claim] = set()
        self._counts: defaultdict[str, int] = defaultdict(int)

    def __len__(self) -> int:
        return len(self._claims)

    def hold(self, claim: Claim) -> None:
        """A claim was granted: it holds its places until `free`."""
        if claim not in self._claims:
            self._claims.add(claim)
            for key in claim.limits.lease_keys:
                self._counts[key] += 1

    def free(self, claim: Claim) -> None:
        """A claim holds its places no longer, if it ever did."""
        if claim in self._claims:
            self._claims.remove(claim)
            for key in claim.limits.lease_keys:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]

    def held(self, key: str) -> int:
        """Return how many places of one limit this replica holds."""
        return self._counts.get(key, 0)

    async def run(self) -> None:
        """Renew all leases every RENEW_S, and at once when Redis is back."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + RENEW_S
        was_available = True
        while True:
            await asyncio.sleep(_TICK_S)
            available = self._redis.available
            if available and (not was_available or loop.time() >= due_s):
                due_s = loop.time() + RENEW_S
                await self.renew()
            was_available = available

    async def renew(self) -> None:
        """Renew what is held now, in calls of at most RENEW_PLACES_MAX places; what was freed meanwhile is released."""
        for batch in self._batches():
            keys = list(batch)
            members = [[claim.event_id for claim in batch[key]] for key in keys]
            try:
                await self._redis.call(self._script, (len(keys), *keys, LEASE_MS, msgspec.json.encode(members)))
            except LimiterUnavailable:
                return  # when it is back all are renewed
            freed = {key: gone for key in keys if (gone := [c for c in batch[key] if c not in self._claims])}
            if freed:
                members = [[claim.event_id for claim in gone] for gone in freed.values()]
                arguments: Command = (len(freed), *freed, 0, msgspec.json.encode(members))
                self._redis.send_soon(self._script, arguments, _RELEASE_LASTS_S)

    def _batches(self) -> Iterator[dict[str, list[Claim]]]:
        """Yield what one call renews: places of one slot, by their keys."""
        by_tag: defaultdict[str, list[tuple[str, Claim]]] = defaultdict(list)
        for claim in self._claims:
            by_tag[claim.limits.tag] += ((key, claim) for key in claim.limits.lease_keys)
        for places in by_tag.values():
            for start in range(0, len(places), RENEW_PLACES_MAX):
                batch: defaultdict[str, list[Claim]] = defaultdict(list)
                for key, claim in places[start : start + RENEW_PLACES_MAX]:
                    batch[key].append(claim)
                yield batch
