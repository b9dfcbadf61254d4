"""A response of an engine as it arrives: what has come and was not read yet, and how it ended.

Each request gets an object of its own, so a connection is free again when its response is complete, read or not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, UpstreamFailed

if TYPE_CHECKING:
    from gateway.providers.http_protocol import HttpConnection

BUFFER_BYTES_MAX = 256 * 1024
LEAVE_S = 1.0
"""How long an engine may take to end a response of which everything has been read."""


class HttpResponse:
    """A response as it arrives; see `gateway.domain.upstream.UpstreamResponse`."""

    __slots__ = (
        "_body",
        "_buffered_bytes",
        "_connection",
        "_error",
        "_left",
        "_waiter",
        "complete",
        "headers",
        "status",
    )

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self._body: list[bytes] = []
        self._buffered_bytes = 0
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self._left = False

    async def head(self) -> None:
        """Wait until status and headers are there."""
        try:
            while not self.status:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except asyncio.CancelledError:
            self.abort()
            raise

    async def read(self) -> bytes:
        """Return the body's next bytes, b"" at its end."""
        while not self._body:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._wait()
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        if self._buffered_bytes > BUFFER_BYTES_MAX:
            self._connection.resume(self)
        self._buffered_bytes = 0
        return data

    def abort(self) -> None:
        """Hang up unless the response is complete. The engine sees a closed connection and stops computing."""
        if not self.complete and self._error is None and not self._left:
            self._connection.fail(self, UpstreamFailed("the request to the engine was given up"))

    def leave(self) -> None:
        """Read no more; the connection has LEAVE_S to see the response's end."""
        if not self.complete and self._error is None:
            self._left = True
            self._connection.hurry(self, LEAVE_S)

    def feed(self, data: bytes) -> bool:
        """Take in a piece of the body; returns whether too much is unread."""
        if self._left:
            return False
        self._body.append(data)
        self._buffered_bytes += len(data)
        self.wake()
        return self._buffered_bytes > BUFFER_BYTES_MAX

    def end(self, error: GatewayError | None) -> None:
        """Take in that nothing more comes: None at a proper end."""
        if error is None:
            self.complete = True
        elif not self.complete and self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
