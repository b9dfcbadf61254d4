"""A TCP server on the loopback address that does, byte by byte, what a test tells it to, one script a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

STEP_S_MAX = 30.0


class RawConnection:
    """The server's end of one connection. Every step fails after STEP_S_MAX seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.sent_bytes = 0

    async def request(self) -> bytes:
        """Read one request, head and body, and return its bytes."""
        async with asyncio.timeout(STEP_S_MAX):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")
            )
            return head + await self._reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        """Send bytes, and wait while the client does not read."""
        async with asyncio.timeout(STEP_S_MAX):
            self._writer.write(data)
            await self._writer.drain()
        self.sent_bytes += len(data)

    async def hung_up(self) -> None:
        """Wait until the client has closed or reset the connection; what it still sends is dropped."""
        async with asyncio.timeout(STEP_S_MAX):
            with suppress(ConnectionError):
                while await self._reader.read(65_536):
                    pass

    def end(self) -> None:
        """Close: the client sees a proper end of the connection."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection: the client sees a reset."""
        peer = self._writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class RawServer:
    """Runs each of `scripts` on one connection, in the order in which they come. An async context manager.

    A script that fails, or a connection that no script is left for, fails the test at the end.
    """

    def __init__(self, *scripts: Callable[[RawConnection], Awaitable[None]]) -> None:
        self._scripts = list(scripts)
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.connections: list[RawConnection] = []
        self.port = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        if error is not None:
            for task in self._running:
                task.cancel()
        if self._running:
            async with asyncio.timeout(STEP_S_MAX):
                await asyncio.wait(self._running)
        for connection in self.connections:
            connection.end()
        if error is None and self._failures:
            raise self._failures[0]

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = RawConnection(reader, writer)
        self.connections.append(connection)
        task = asyncio.get_running_loop().create_task(self._run(len(self.connections) - 1, connection))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, number: int, connection: RawConnection) -> None:
        try:
            await self._scripts[number](connection)
        except Exception as failure:
            self._failures.append(failure)
            connection.end()
