"""One question to Redis for many requests: scripts called in the same event-loop tick go out in one flush.

A flush has a deadline. When it is missed or Redis errs, everything that is waiting fails at once with
LimiterUnavailable, so that nobody waits a deadline after another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import RedisError

from gateway.admit.script_call import REASON_CHARS_MAX, Refusal, ScriptCall, ScriptFailed, meaning_of
from gateway.errors import LimiterUnavailable, reason_of
from gateway.patience import Alarm, Deadline
from gateway.storage.redis_link import RedisLink, open_link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from gateway.admit.script import Script
    from gateway.admit.script_call import Owner
    from gateway.storage.redis_link import Command

FLUSHES_MAX = 4
"""Flushes on their way at once, each on a connection of its own; calls made meanwhile gather for the next."""

CALLS_PER_FLUSH_MAX = 64
"""Few enough that Redis runs them in a fraction of the deadline: a flush must not be late by its own size."""

CALLS_WAITING_MAX = 20_000

CONNECT_S_MAX = 1.0
"""A connection takes several round trips; those who wait for one have their own, shorter deadline."""

CONNECT_PAUSE_S = 1.0
"""After a further connection could not be made, the ones that are there have to do for a while."""


class _Channel:
    """One connection and the flush that is on its way over it."""

    __slots__ = ("_alarm", "_batch", "_forgotten", "_loading", "_unloaded", "calls", "link", "outworn")

    def __init__(self, batch: RedisBatch) -> None:
        self._batch = batch
        self._alarm = Alarm(self._late)
        self._forgotten: list[ScriptCall] = []
        self._loading = 0
        self._unloaded = ""
        self.calls: deque[ScriptCall] = deque()
        self.link: RedisLink
        self.outworn = False
        """To be ended once its flush is answered."""

    def ask(self, calls: list[ScriptCall], deadline_s: float) -> None:
        """Send a flush; the channel is free again when all of it is answered."""
        for call in calls:
            call.deadline_s = call.deadline_s or deadline_s
        self.calls.extend(calls)
        self._alarm.set(calls[0].deadline_s or deadline_s)
        self.link.send([call.command() for call in calls])

    def answered(self, answer: Any) -> None:
        """See `Listener`."""
        if self._loading:
            self._loading -= 1
            if isinstance(answer, hiredis.ReplyError):  # then the call that needs it fails, and this is why
                self._unloaded = str(answer)
            return
        if not self.calls:
            self._batch.failed(self, "it speaks unasked")
            return
        call = self.calls.popleft()
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT") and not call.reloaded:
            call.reloaded = True
            self._forgotten.append(call)
        elif isinstance(answer, hiredis.ReplyError):
            text = str(answer)
            self._batch.refused(call, self._unloaded if text.startswith("NOSCRIPT") else text)
        else:
            call.resolve(answer)
        if not self.calls:
            if self._forgotten:
                self._load()
            else:
                self._alarm.stop()
                self._batch.freed(self)

    def lost(self) -> None:
        """See `Listener`."""
        self._batch.lost(self)

    def close(self) -> list[ScriptCall]:
        """End the connection; return the calls that have no answer."""
        self._alarm.close()
        self.link.close()
        calls = [*self._forgotten, *self.calls]
        self._forgotten.clear()
        self.calls.clear()
        return calls

    def _load(self) -> None:
        """Redis was restarted or flushed: tell it the scripts and ask again, in one more round trip."""
        self.calls.extend(self._forgotten)
        sources = {call.script.source for call in self._forgotten}
        self._loading = len(sources)
        self._unloaded = "NOSCRIPT it was loaded and is not known"
        loads: list[Command] = [("SCRIPT", "LOAD", source) for source in sources]
        self.link.send(loads + [call.command() for call in self._forgotten])
        self._forgotten.clear()

    def _late(self) -> None:
        self._batch.failed(self, "late")


class RedisBatch:
    """Runs scripts in shared flushes, each answered within `timeout_s` or failed."""

    def __init__(self, client: Redis, timeout_s: float, owner: Owner) -> None:
        self._client = client
        self._owner = owner
        self._timeout_s = timeout_s
        self._waiting: deque[ScriptCall] = deque()
        self._scheduled = False
        self._channels: set[_Channel] = set()
        self._idle: list[_Channel] = []
        self._connecting: asyncio.Task[None] | None = None
        self._connect_after_s = 0.0
        self._alarm = Alarm(lambda: self._give_up("late"))
        """For calls that wait while there is no connection at all."""
        self.turns = 0
        """Flushes answered, and connections made."""
        self._quiet = asyncio.Event()
        """Set when nothing waits and nothing is under way; only `close` looks at it."""
        self._quiet.set()

    def call(self, script: Script, arguments: Command) -> asyncio.Future[Any]:
        """Queue one script call (`arguments` begins with the number of keys) and return its answer to come.

        The answer fails with LimiterUnavailable when Redis is late, away, or refuses.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.take(ScriptCall(script, arguments, future))
        return future

    def take(self, call: ScriptCall) -> None:
        """Queue a call."""
        if len(self._waiting) >= CALLS_WAITING_MAX:
            self._owner.away("too many requests wait for it")
            call.fail(LimiterUnavailable("too many requests wait for Redis"))
            return
        self._waiting.append(call)
        self._quiet.clear()
        self._flush_soon()

    async def close(self) -> None:
        """Wait for what was called, at most a deadline for each flush, and end the connections."""
        await self._quiet.wait()
        self._alarm.close()
        while self._idle:
            self._drop(self._idle.pop())

    # --- what channels tell

    def freed(self, channel: _Channel) -> None:
        """A flush is answered, or a connection was made."""
        self.turns += 1
        self._alarm.stop()
        if channel.outworn:
            self._drop(channel)
        else:
            self._idle.append(channel)
        if self._waiting:
            self._flush_soon()
        else:
            self._look_quiet()

    def lost(self, channel: _Channel) -> None:
        """A connection broke. Redis, or what stands before it, may have closed what it kept: that is not being away.

        Scripts may be run again: reserving twice is a no-op, and so is settling twice.
        """
        if any(call.sent_again for call in channel.calls):
            self.failed(channel, "it broke the connection off")
            return
        for call in reversed(self._drop(channel)):
            call.sent_again = True
            self._waiting.appendleft(call)
        while self._idle:  # what closed one has probably closed the others
            self._drop(self._idle.pop())
        if self._waiting:
            self._flush_soon()

    def failed(self, channel: _Channel, reason: str) -> None:
        """Redis is away, late, or out of its mind: give up everything that waits for it."""
        self._give_up(reason, self._drop(channel))

    def refused(self, call: ScriptCall, text: str) -> None:
        """Redis answered a call with an error: the keys are elsewhere, it can run no script, or found broken keys."""
        refusal = Refusal.of(text)
        if refusal is Refusal.ELSEWHERE:
            self._owner.elsewhere(call, text)
        elif refusal is Refusal.UNABLE:
            self._owner.away(f"it refuses: {meaning_of(text)}")
            call.fail(LimiterUnavailable("Redis refuses to run scripts"))
            for channel in self._channels:  # to a primary that was, while its name may lead to another one by now
                channel.outworn = True
            while self._idle:
                self._drop(self._idle.pop())
        else:
            failed = ScriptFailed(f"the script failed: {text[:REASON_CHARS_MAX]}")
            self._owner.script_failed(failed)
            call.fail(failed)

    # --- flushes

    def _flush_soon(self) -> None:
        if not self._scheduled and (self._idle or len(self._channels) < FLUSHES_MAX):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        deadline_s = now_s + self._timeout_s
        waiting = self._waiting
        while waiting and self._idle:
            channel = self._idle.pop()
            if channel.link.closing:
                self._drop(channel)
                continue
            calls = [waiting.popleft() for _ in range(min(len(waiting), CALLS_PER_FLUSH_MAX))]
            channel.ask(calls, deadline_s)
        may_connect = not self._channels or (len(self._channels) < FLUSHES_MAX and now_s >= self._connect_after_s)
        if waiting and self._connecting is None and may_connect:
            self._connecting = loop.create_task(self._connect())
        if waiting and not self._channels:
            waiting[0].deadline_s = waiting[0].deadline_s or deadline_s
            self._alarm.set(waiting[0].deadline_s)
        self._look_quiet()

    async def _connect(self) -> None:
        channel = _Channel(self)
        reason: str | None = "no connection"
        try:
            async with Deadline(max(CONNECT_S_MAX, self._timeout_s)):
                channel.link = await open_link(self._client, channel)
            reason = None
        except (RedisError, OSError, TimeoutError) as error:
            reason = reason_of(error)[:REASON_CHARS_MAX]
        finally:
            self._connecting = None
            if reason is None:
                self._channels.add(channel)
                self.freed(channel)
            elif self._channels:  # Redis may have as many clients as it takes: no reason to give up on it
                self._connect_after_s = asyncio.get_running_loop().time() + CONNECT_PAUSE_S
                self._look_quiet()
            elif self._waiting and not any(call.sent_again for call in self._waiting):
                for call in self._waiting:  # it may have been cut with those that were there
                    call.sent_again = True
                self._flush_soon()
            else:
                self._give_up(reason)

    def _give_up(self, reason: str, unanswered: Sequence[ScriptCall] = ()) -> None:
        self._alarm.stop()
        calls = [*unanswered, *self._waiting]
        self._waiting.clear()
        if calls:  # else a further connection broke while it was made
            self._owner.away(reason)
        for call in calls:
            call.fail(LimiterUnavailable(f"Redis does not answer: {reason}"))
        self._look_quiet()

    def _drop(self, channel: _Channel) -> list[ScriptCall]:
        self._channels.discard(channel)
        if channel in self._idle:
            self._idle.remove(channel)
        return channel.close()

    def _look_quiet(self) -> None:
        if not self._waiting and self._connecting is None and len(self._idle) == len(self._channels):
            self._quiet.set()
