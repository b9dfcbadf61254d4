"""One Redis as the limiter uses it: scripts, a breaker for when it is away, and what is sent when it is back.

Whatever its batch could not get done for want of Redis opens the breaker; a probe that Redis answers closes it. Redis
forgets, so nothing here is money: a settle that is lost leaves a reservation standing as it was estimated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.admit.redis_batch import RedisBatch, ScriptFailed
from gateway.admit.script import Script
from gateway.errors import LimiterUnavailable
from gateway.patience import Deadline

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.observe.metrics import Metrics
    from gateway.storage.redis_link import Command

UNSENT_MAX = 100_000
"""Calls kept for when Redis is back; above it the oldest is dropped, and its reservation stands."""

_PROBE_INTERVAL_S = 0.25
_WATCH_S = 1.0
_PROBE_S = 1.0
_PROBE_TTL_MS = 1000
_RETRY_BATCH = 256

_log = structlog.get_logger("penstock.admit")


@dataclass(frozen=True, slots=True)
class _Unsent:
    script: Script
    arguments: Command
    expires_s: float


class RedisNode:
    """Runs scripts; while Redis is away `available` is False and every call fails at once, until a probe succeeds."""

    def __init__(self, client: Redis, *, timeout_s: float, metrics: Metrics) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._batch = RedisBatch(client, timeout_s, self)
        self._probe = Script.load("reserve")
        self._metrics = metrics
        self._unsent: deque[_Unsent] = deque(maxlen=UNSENT_MAX)
        self._wake = asyncio.Event()
        self._tell_failed_s = 0.0
        self.available = True

    def call(self, script: Script, arguments: Command) -> asyncio.Future[Any]:
        """Run a script: `arguments` begins with the number of keys and the keys. Returns its answer to come.

        Raises (or the answer does):
            ScriptFailed: the script found broken keys. Scripts read all before they write: nothing has changed.
            LimiterUnavailable: Redis is away, or did not answer in time; whether the script ran is unknown.
        """
        if not self.available:
            raise LimiterUnavailable("Redis is away")
        return self._batch.call(script, arguments)

    def send_soon(self, script: Script, arguments: Command, lasts_s: float) -> None:
        """Run a script in the background, again for `lasts_s` should Redis be away. Never blocks, never raises.

        So the script must be one that may run twice.
        """
        unsent = _Unsent(script, arguments, time.monotonic() + lasts_s)
        if not self.available:
            self._keep(unsent)
            return

        def done(future: asyncio.Future[object]) -> None:
            self._finish(unsent, None if future.cancelled() else future.exception())

        self._batch.call(script, arguments).add_done_callback(done)

    async def run(self) -> None:
        """Watch over Redis until cancelled: close the breaker when it answers again, and send what had to wait.

        Without traffic it is asked once a second, so that readiness and metrics tell how things are, not how they were.
        """
        while True:
            try:
                async with asyncio.timeout(_WATCH_S):
                    await self._wake.wait()
            except TimeoutError:
                if self.available and not await self._answers():
                    self.away("no answer to a probe")
                continue
            await asyncio.sleep(_PROBE_INTERVAL_S)
            if not self.available and not await self._answers():
                continue
            if not self.available:
                self.available = True
                self._metrics.limiter_fallback.set(0)
                _log.warning("redis_back", settles_waiting=len(self._unsent))
            self._wake.clear()
            await self._send_waiting()

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines; the rest is left to the reservations' expiry."""
        await self._batch.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * self._timeout_s + 1):
                while self._unsent and self.available:
                    await self._send_waiting()
        await self._batch.close()

    async def check(self) -> None:
        """Ask Redis how it evicts: anything but `noeviction` may drop buckets, which hands out full ones."""
        try:
            async with asyncio.timeout(max(self._timeout_s, 1.0)):
                policy = (await self._client.config_get("maxmemory-policy")).get("maxmemory-policy")
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("redis_policy_unknown", reason=type(error).__name__)
            return
        if policy != "noeviction":
            _log.error("redis_evicts", policy=policy, advice="set maxmemory-policy to noeviction: limits live in Redis")
        self._metrics.redis_noeviction.set(1 if policy == "noeviction" else 0)

    # --- what the batch tells

    def away(self, reason: str) -> None:
        """Open the breaker: Redis is away, late, or refuses to run scripts."""
        self._wake.set()
        if self.available:
            self.available = False
            self._metrics.limiter_fallback.set(1)
            _log.warning("redis_away", reason=reason)

    def script_failed(self, error: ScriptFailed) -> None:
        """One tenant's keys are broken, not Redis: say so now and then; the policy decides for that request."""
        now_s = time.monotonic()
        if now_s >= self._tell_failed_s:
            self._tell_failed_s = now_s + _WATCH_S
            _log.error("redis_script_failed", reason=str(error))

    # --- what had to wait

    def _finish(self, unsent: _Unsent, error: BaseException | None) -> None:
        if isinstance(error, ScriptFailed):
            self._metrics.settles_dropped.inc()
        elif error is not None:
            self._keep(unsent)

    def _keep(self, unsent: _Unsent) -> None:
        if len(self._unsent) == self._unsent.maxlen:
            self._metrics.settles_dropped.inc()
        self._unsent.append(unsent)
        self._wake.set()

    async def _send_waiting(self) -> None:
        now_s = time.monotonic()
        batch = [self._unsent.popleft() for _ in range(min(len(self._unsent), _RETRY_BATCH))]
        waiting = [unsent for unsent in batch if unsent.expires_s > now_s]
        futures = [self._batch.call(unsent.script, unsent.arguments) for unsent in waiting]
        for unsent, outcome in zip(waiting, await asyncio.gather(*futures, return_exceptions=True), strict=True):
            self._finish(unsent, outcome if isinstance(outcome, BaseException) else None)
        if self._unsent:
            self._wake.set()

    async def _answers(self) -> bool:
        """Whether Redis does what is asked of it: a ping would be answered by a read-only or full one too.

        Asked again once where the connection breaks: a kept one may have been closed, and that is not being away.
        """
        key = f"pst:{{probe}}:r:{uuid4().hex}"
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with Deadline(_PROBE_S):
                try:
                    await self._client.eval(self._probe.source, 1, key, _PROBE_TTL_MS, "[]", "[0,0,0,0]")
                except (RedisConnectionError, OSError):
                    await self._client.eval(self._probe.source, 1, key, _PROBE_TTL_MS, "[]", "[0,0,0,0]")
            return True
        return False
