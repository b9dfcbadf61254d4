"""Deadlines that tell a slow server from a busy event loop.

When the loop itself was late, an answer may lie in the socket, unread: giving up then would blame Redis or Postgres
for this process's own load. So a deadline that has passed lets the loop look at its sockets once more before it acts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

TURNS = 4
"""Turns of the loop that a late answer gets: one to poll the socket, the others to hand the answer up to who waits."""


class Deadline:
    """`async with Deadline(seconds):` raises TimeoutError once the time is over, as asyncio.timeout does."""

    __slots__ = ("_seconds", "_timeout", "_timer", "_turns")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None
        self._turns = TURNS

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._late)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _late(self) -> None:
        loop = asyncio.get_running_loop()
        if self._turns:
            self._turns -= 1
            self._timer = loop.call_soon(self._late)
        else:
            self._timer = None
            self._timeout.reschedule(loop.time())


async def done_within(task: asyncio.Future[T], seconds: float) -> bool:
    """Wait for `task`, at most `seconds`, and return whether it is done; it goes on in any case."""
    try:
        async with Deadline(seconds):
            await asyncio.wait((task,))
    except TimeoutError:
        return task.done()
    return True
