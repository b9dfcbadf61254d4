"""Deadlines that tell a slow server from a busy event loop.

When the loop itself was late, an answer may lie in the socket, unread: giving up then would blame Redis or Postgres
for this process's own load. So a deadline that has passed lets the loop look at its sockets once more before it acts.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")

TURNS = 4
"""Turns of the loop that a late answer gets: one to poll the socket, the others to hand the answer up to who waits."""


class Alarm:
    """Calls `on_late` when the time last `set` is over; setting it again before that costs no timer of the loop."""

    __slots__ = ("_at_s", "_on_late", "_timer", "_timer_s", "_turns")

    def __init__(self, on_late: Callable[[], None]) -> None:
        self._on_late = on_late
        self._at_s = math.inf
        self._turns = TURNS
        self._timer: asyncio.Handle | None = None
        self._timer_s = math.inf
        """When the timer fires: at the time that was set, or before it."""

    def set(self, at_s: float) -> None:
        """Be called at `at_s`, by the loop's clock, instead of any other time."""
        if at_s != self._at_s:
            self._at_s = at_s
            self._turns = TURNS
        if at_s < self._timer_s:
            self._start(at_s)

    def stop(self) -> None:
        """Be called no more until the next `set`."""
        self._at_s = math.inf

    def close(self) -> None:
        """Leave nothing behind in the loop."""
        self._at_s = self._timer_s = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = asyncio.get_running_loop().call_at(at_s, self._look)

    def _look(self) -> None:
        """The time has come, or another one was set meanwhile, or none."""
        self._timer = None
        self._timer_s = math.inf
        if self._at_s == math.inf:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._at_s:
            self._start(self._at_s)
        elif self._turns:
            self._turns -= 1
            self._timer = loop.call_soon(self._look)
        else:
            self._at_s = math.inf
            self._on_late()


class Deadline:
    """`async with Deadline(seconds):` raises TimeoutError once the time is over, as asyncio.timeout does."""

    __slots__ = ("_alarm", "_seconds", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._alarm = Alarm(self.end)
        self._alarm.set(asyncio.get_running_loop().time() + self._seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._alarm.close()
        del self._alarm  # it refers to this: the two would be a cycle for the collector
        await self._timeout.__aexit__(kind, error, traceback)

    def end(self) -> None:
        """The time is over now, whatever was left of it; again changes nothing. Only within the block."""
        self._alarm.stop()
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())


async def done_within(task: asyncio.Future[T], seconds: float) -> bool:
    """Wait for `task`, at most `seconds`, and return whether it is done; it goes on in any case."""
    try:
        async with Deadline(seconds):
            await asyncio.wait((task,))
    except TimeoutError:
        return task.done()
    return True
