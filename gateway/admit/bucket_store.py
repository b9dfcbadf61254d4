"""The buckets in Redis: reserve and settle as script calls, a breaker for when Redis is away, settles that are retried.

Redis forgets, so nothing here is money: a settle that is lost leaves a reservation standing as it was estimated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.admit.bucket import Refusal, UsageVector
from gateway.admit.redis_batch import RedisBatch, ScriptFailed
from gateway.admit.script import Script
from gateway.errors import LimiterUnavailable
from gateway.patience import Deadline

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.admit.policy import BucketSet
    from gateway.observe.metrics import Metrics
    from gateway.storage.redis_link import Command

SETTLES_WAITING_MAX = 100_000
"""Settles kept for when Redis is back; above it the oldest is dropped and its reservation stands."""

WITHDRAWAL_MS = 60_000
_PROBE_INTERVAL_S = 0.25
_WATCH_S = 1.0
_PROBE_S = 1.0
_PROBE_TTL_MS = 1000
_RETRY_BATCH = 256

_log = structlog.get_logger("penstock.admit")


@dataclass(frozen=True, slots=True)
class Granted:
    """Levels left in each bucket, rounded down."""

    levels: list[int]


@dataclass(frozen=True, slots=True)
class _Settle:
    arguments: Command
    expires_s: float


class BucketStore:
    """Asks Redis; while it is away `available` is False and every call fails at once, until a probe succeeds."""

    def __init__(self, client: Redis, *, timeout_s: float, reservation_ttl_s: float, metrics: Metrics) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._batch = RedisBatch(client, timeout_s)
        self._reserve = Script.load("reserve")
        self._settle = Script.load("settle")
        self._reservation_ttl_s = reservation_ttl_s
        self._ttl_ms = int(reservation_ttl_s * 1000)
        self._metrics = metrics
        self._unsettled: deque[_Settle] = deque(maxlen=SETTLES_WAITING_MAX)
        self._wake = asyncio.Event()
        self._tell_failed_s = 0.0
        self.available = True

    async def reserve(self, event_id: str, buckets: BucketSet, usage: UsageVector) -> Granted | Refusal:
        """Take `usage` from all buckets or from none. Repeating it with the same event id changes nothing.

        Raises:
            LimiterUnavailable: Redis did not answer in time; whether it took anything is unknown, and a withdrawal
                is queued, so nothing stays taken.
        """
        if not self.available:
            raise LimiterUnavailable("Redis is away")
        key = buckets.reservation_key(event_id)
        try:
            answer = await self._batch.call(
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
        except ScriptFailed as error:  # it reads everything before it writes, so nothing was taken
            self._script_failed(error)
            raise
        except LimiterUnavailable as error:
            self._queue(self._settle_arguments(key, buckets, UsageVector(0, 0, 0, 0), WITHDRAWAL_MS))
            self._trip(error)
            raise
        except asyncio.CancelledError:
            self.withdraw_soon(event_id, buckets)
            raise
        if answer[0] == 1:
            return Granted(answer[1:])
        if answer[1] == 0:
            raise LimiterUnavailable("the reservation was withdrawn before it arrived")
        return Refusal(answer[1] - 1, answer[2])

    def settle_soon(self, event_id: str, buckets: BucketSet, used: UsageVector) -> None:
        """Replace a reservation by what was used, in the background; never blocks, never raises."""
        self._send(self._settle_arguments(buckets.reservation_key(event_id), buckets, used, 0))

    def withdraw_soon(self, event_id: str, buckets: BucketSet) -> None:
        """Give everything back, also when the reservation has yet to reach Redis."""
        nothing = UsageVector(0, 0, 0, 0)
        self._send(self._settle_arguments(buckets.reservation_key(event_id), buckets, nothing, WITHDRAWAL_MS))

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
                    self._trip(LimiterUnavailable("Redis does not answer a probe"))
                continue
            await asyncio.sleep(_PROBE_INTERVAL_S)
            if not self.available and not await self._answers():
                continue
            if not self.available:
                self.available = True
                self._metrics.limiter_fallback.set(0)
                _log.warning("redis_back", settles_waiting=len(self._unsettled))
            self._wake.clear()
            await self._send_waiting()

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines; the rest is left to the reservations' expiry."""
        await self._batch.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * self._timeout_s + 1):
                while self._unsettled and self.available:
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

    def _settle_arguments(self, key: str, buckets: BucketSet, used: UsageVector, memory_ms: int) -> Command:
        return (
            len(buckets.keys) + 1,
            key,
            *buckets.keys,
            buckets.spec_json,
            msgspec.json.encode(used),
            memory_ms,
        )

    def _send(self, arguments: Command) -> None:
        if not self.available:
            self._queue(arguments)
            return

        def done(future: asyncio.Future[object]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, ScriptFailed):
                self._script_failed(error)
                self._metrics.settles_dropped.inc()
            elif future.cancelled() or error is not None:
                self._queue(arguments)
                self._trip(error)

        self._batch.call(self._settle, arguments).add_done_callback(done)

    def _queue(self, arguments: Command) -> None:
        if len(self._unsettled) == SETTLES_WAITING_MAX:
            self._metrics.settles_dropped.inc()
        self._unsettled.append(_Settle(arguments, time.monotonic() + self._reservation_ttl_s))
        self._wake.set()

    async def _send_waiting(self) -> None:
        now_s = time.monotonic()
        batch = [self._unsettled.popleft() for _ in range(min(len(self._unsettled), _RETRY_BATCH))]
        waiting = [settle for settle in batch if settle.expires_s > now_s]
        futures = [self._batch.call(self._settle, settle.arguments) for settle in waiting]
        for settle, outcome in zip(waiting, await asyncio.gather(*futures, return_exceptions=True), strict=True):
            if isinstance(outcome, ScriptFailed):
                self._script_failed(outcome)
                self._metrics.settles_dropped.inc()
            elif isinstance(outcome, BaseException):
                self._unsettled.append(settle)
                self._trip(outcome)
        if self._unsettled:
            self._wake.set()

    async def _answers(self) -> bool:
        """Whether Redis does what is asked of it: a ping would be answered by a read-only or full one too.

        Asked again once where the connection breaks: a kept one may have been closed, and that is not being away.
        """
        key = f"pst:{{probe}}:r:{uuid4().hex}"
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with Deadline(_PROBE_S):
                try:
                    await self._client.eval(self._reserve.source, 1, key, _PROBE_TTL_MS, "[]", "[0,0,0,0]")
                except (RedisConnectionError, OSError):
                    await self._client.eval(self._reserve.source, 1, key, _PROBE_TTL_MS, "[]", "[0,0,0,0]")
            return True
        return False

    def _script_failed(self, error: ScriptFailed) -> None:
        """One tenant's keys are broken, not Redis: say so now and then; the policy decides for that request."""
        now_s = time.monotonic()
        if now_s >= self._tell_failed_s:
            self._tell_failed_s = now_s + _WATCH_S
            _log.error("redis_script_failed", reason=str(error))

    def _trip(self, error: BaseException | None) -> None:
        self._wake.set()
        if self.available:
            self.available = False
            self._metrics.limiter_fallback.set(1)
            _log.warning("redis_away", reason=str(error) if error else "cancelled")
