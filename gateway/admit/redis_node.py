"""One Redis as the limiter uses it: scripts, a breaker for when it is away, and what is sent when it is back.

Whatever its batch could not get done for want of Redis opens the breaker; a probe that Redis answers in time closes it.
Redis forgets, so nothing here is money: a settle that is lost leaves a reservation standing as it was estimated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from gateway.admit.redis_batch import CALLS_PER_FLUSH_MAX, RedisBatch
from gateway.admit.script import Script
from gateway.admit.script_call import ScriptFailed
from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.admit.script_call import ScriptCall
    from gateway.storage.redis_link import Command

UNSENT_MAX = 100_000
"""Calls kept for when Redis is back; above it the oldest is dropped, and its reservation stands."""

PROBE_PAUSE_S = 0.25
PROBE_PAUSE_S_MAX = 15.0
STEADY_TURNS = 8
"""A Redis that is away again before it answered so many flushes is probed half as often, down to PROBE_PAUSE_S_MAX."""

WATCH_S = 1.0
SEND_PAUSE_S = 0.05
"""Between two flushes of what had to wait: many replicas send theirs at the same time, and requests come first."""

_PROBE_TTL_MS = 1000

_log = structlog.get_logger("penstock.admit")


@dataclass(frozen=True, slots=True)
class Unsent:
    """A call that is sent until it is answered, or until `expires_s` by the monotonic clock."""

    script: Script
    arguments: Command
    expires_s: float


class Whole(Protocol):
    """What a node is part of. No method may raise."""

    def changed(self, node: RedisNode) -> None:
        """`node.available` is another."""
        ...

    def failing(self, node: RedisNode) -> None:
        """It is away, or still is."""
        ...

    def dropped(self) -> None:
        """A call was given up for good."""
        ...

    def elsewhere(self, node: RedisNode, call: ScriptCall, text: str) -> None:
        """Another node has the keys of a call, as this one says."""
        ...

    def probe_key(self, node: RedisNode) -> str:
        """Return a key of this node to try it with."""
        ...


class RedisNode:
    """Runs scripts; while Redis is away `available` is False and every call fails at once, until a probe succeeds."""

    def __init__(self, client: Redis, whole: Whole, *, timeout_s: float, name: str = "") -> None:
        self.client = client
        self.name = name
        """Host and port where there are several."""
        self.available = True
        self._whole = whole
        self._timeout_s = timeout_s
        self._batch = RedisBatch(client, timeout_s, self)
        self._probe = Script.load("probe")
        self._unsent: deque[Unsent] = deque(maxlen=UNSENT_MAX)
        self._wake = asyncio.Event()
        self._back_turns = -STEADY_TURNS
        self._pause_s = PROBE_PAUSE_S
        self._tell_failed_s = 0.0

    def __repr__(self) -> str:
        return f"<RedisNode {self.name} {'available' if self.available else 'away'}>"

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
        self.send(Unsent(script, arguments, time.monotonic() + lasts_s))

    def send(self, unsent: Unsent) -> None:
        """Do as `send_soon` does."""
        if not self.available:
            self._keep(unsent)
            return

        def done(future: asyncio.Future[object]) -> None:
            self._finish(unsent, None if future.cancelled() else future.exception())

        self._batch.call(unsent.script, unsent.arguments).add_done_callback(done)

    def take(self, call: ScriptCall) -> None:
        """Run a call that another node had been asked for."""
        if self.available:
            self._batch.take(call)
        else:
            call.fail(LimiterUnavailable("Redis is away"))

    async def run(self) -> None:
        """Watch over Redis until cancelled: close the breaker when it answers again, and send what had to wait.

        Without traffic it is asked once a second, so that readiness and metrics tell how things are, not how they were.
        """
        while True:
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._wake.wait()
            except TimeoutError:
                await self._answers()
                continue
            if not self.available:
                await asyncio.sleep(_jittered(self._pause_s))
                if not await self._answers():
                    self._whole.failing(self)
                    continue
                self._back()
            self._wake.clear()
            await self._send_waiting()
            if self._unsent:
                self._wake.set()
                await asyncio.sleep(_jittered(SEND_PAUSE_S))

    async def close(self) -> None:
        """Send what is queued, bounded by a few deadlines; the rest is left to the reservations' expiry."""
        await self._batch.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * self._timeout_s + 1):
                while self._unsent and self.available:
                    await self._send_waiting()
        await self._batch.close()

    def take_unsent(self) -> list[Unsent]:
        """Give away what waits to be sent: this node is no longer the one to send it to."""
        unsent = list(self._unsent)
        self._unsent.clear()
        return unsent

    # --- what the batch tells

    def away(self, reason: str) -> None:
        """Open the breaker: Redis is away, late, or refuses to run scripts."""
        self._wake.set()
        if not self.available:
            return
        self.available = False
        steady = self._batch.turns - self._back_turns >= STEADY_TURNS
        self._pause_s = PROBE_PAUSE_S if steady else min(2 * self._pause_s, PROBE_PAUSE_S_MAX)
        _log.warning("redis_away", reason=reason, **self._which())
        self._whole.changed(self)
        self._whole.failing(self)

    def script_failed(self, error: ScriptFailed) -> None:
        """One tenant's keys are broken, not Redis: say so now and then; the policy decides for that request."""
        now_s = time.monotonic()
        if now_s >= self._tell_failed_s:
            self._tell_failed_s = now_s + WATCH_S
            _log.error("redis_script_failed", reason=str(error), **self._which())

    def elsewhere(self, call: ScriptCall, text: str) -> None:
        """Another node of a cluster has the keys of a call."""
        self._whole.elsewhere(self, call, text)

    # --- what had to wait

    def _back(self) -> None:
        self.available = True
        self._back_turns = self._batch.turns
        _log.warning("redis_back", settles_waiting=len(self._unsent), **self._which())
        self._whole.changed(self)

    def _which(self) -> dict[str, str]:
        return {"node": self.name} if self.name else {}

    def _finish(self, unsent: Unsent, error: BaseException | None) -> None:
        if isinstance(error, ScriptFailed):
            self._whole.dropped()
        elif error is not None:
            self._keep(unsent)

    def _keep(self, unsent: Unsent) -> None:
        if len(self._unsent) == self._unsent.maxlen:
            self._whole.dropped()
        self._unsent.append(unsent)
        self._wake.set()

    async def _send_waiting(self) -> None:
        now_s = time.monotonic()
        batch = [self._unsent.popleft() for _ in range(min(len(self._unsent), CALLS_PER_FLUSH_MAX))]
        waiting = [unsent for unsent in batch if unsent.expires_s > now_s]
        futures = [self._batch.call(unsent.script, unsent.arguments) for unsent in waiting]
        for unsent, outcome in zip(waiting, await asyncio.gather(*futures, return_exceptions=True), strict=True):
            self._finish(unsent, outcome if isinstance(outcome, BaseException) else None)

    async def _answers(self) -> bool:
        """Whether Redis runs a script in time, which is what requests ask of it; if not, it is away."""
        try:
            await self._batch.call(self._probe, (1, self._whole.probe_key(self), _PROBE_TTL_MS))
        except LimiterUnavailable as error:
            self.away(str(error))
            return False
        return True


def _jittered(pause_s: float) -> float:
    """Return a time around `pause_s`, so that replicas do not ask all at once what they lost all at once."""
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
