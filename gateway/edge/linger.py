"""Closes a connection whose client may still be sending: the answer first, then what comes is dropped for a while.

A connection that is closed with bytes unread is reset, and the reset destroys an answer that its client has not read
yet. So the writing side is closed with the answer and the reading side later (RFC 9112, 9.6), within bounds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE_S_MAX = 3.0
"""How long a client may say nothing before what it still has to say is given up."""


class Lingering(asyncio.Protocol):
    """The protocol of a connection that has had its last answer: it drops what comes, and closes.

    `before` hears of the end of the connection when that has come, so until then it counts as open.
    """

    def __init__(
        self, transport: asyncio.Transport, before: asyncio.Protocol, *, bytes_max: int, time_s_max: float
    ) -> None:
        self._transport = transport
        self._before = before
        self._bytes_left = bytes_max
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._end_s = self._heard_s + time_s_max
        self._timer = self._loop.call_later(min(SILENCE_S_MAX, time_s_max), self._look)
        transport.set_protocol(self)
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Drop it."""
        self._heard_s = self._loop.time()
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Both sides are closed."""
        self._timer.cancel()
        self._before.connection_lost(exc)

    def _look(self) -> None:
        end_s = min(self._heard_s + SILENCE_S_MAX, self._end_s)
        if self._loop.time() < end_s:
            self._timer = self._loop.call_at(end_s, self._look)
        else:
            self._transport.abort()  # also when the answer itself is not read


class ClosesGently(asyncio.Transport):
    """What a request's cycle takes for its transport while the body is still coming: its close is `close_gently`."""

    def __init__(self, transport: asyncio.Transport, close_gently: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close_gently = close_gently

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the connection."""
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection once the client has stopped sending."""
        self._close_gently()


class Closing(asyncio.Transport):
    """What everybody but `Lingering` takes for the transport from then on: it closes already."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it: the answer is complete."""

    def is_closing(self) -> bool:
        """Nothing more can be written."""
        return True

    def get_write_buffer_size(self) -> int:
        """Nothing waits that `Lingering` would not give up in its own time."""
        return 0

    def close(self) -> None:
        """Nothing is left to do."""
