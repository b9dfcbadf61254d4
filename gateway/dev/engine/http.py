"""The little of HTTP that the engine needs on top of ASGI: bodies, answers, hang-ups and resets.

uvicorn does not let an application break a connection, so `ResettableProtocol` puts the transport into the scope.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.dev.engine.errors import EngineError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES_MAX = 67_108_864
TRANSPORT = "penstock.transport"
JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
# Turns of the event loop that a reset waits for what was written before it to leave the process.
FLUSH_TURNS_MAX = 100
VANISHED_S_MAX = 3_600


class ClientGone(Exception):
    """The client closed the connection before its answer was complete."""


class ResettableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with the connection's transport in `scope["extensions"]`."""

    def on_message_begin(self) -> None:
        """Open the scope of the next request."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


async def read_body(receive: Receive) -> bytes:
    """Return the whole request body. Raises EngineError 413 beyond `BODY_BYTES_MAX`, ClientGone when it never ends."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise EngineError(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Send a whole answer; JSON unless `headers` say otherwise."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*(headers or [JSON]), length]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def cancelled_by_hang_up(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client hangs up, and raise ClientGone from it.

    The request's body must have been read. Works as `asyncio.timeout` does: the watcher cancels this task while it is
    suspended inside the block, so the CancelledError always arrives here, and other cancellations pass through.
    """
    task = asyncio.current_task()
    assert task is not None, "runs inside a request's task"
    cancelling = task.cancelling()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelling:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def _flushed(scope: Scope) -> asyncio.Transport:
    """Return the connection after what was sent so far has left the process."""
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]["transport"]
    for _ in range(FLUSH_TURNS_MAX):
        await asyncio.sleep(0)
        if transport.get_write_buffer_size() == 0:
            break
    return transport


async def vanish(scope: Scope) -> None:
    """Leave the connection as a peer does that has lost its power: not even the client's hang-up is seen.

    The kernel still acknowledges what fits its buffer. Reset after `VANISHED_S_MAX`.
    """
    transport = await _flushed(scope)
    transport.pause_reading()
    # uvicorn closes a connection whose application returns, and does not look for one that waits.
    await asyncio.sleep(VANISHED_S_MAX)
    await reset(scope)


async def reset(scope: Scope) -> None:
    """Reset the connection (RST), after what was sent so far has left the process."""
    transport = await _flushed(scope)
    # Closing with data discarded (linger of 0 s) is what makes the kernel send RST and not FIN.
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
