"""An engine in the test's own event loop: it sends what it is told to in pieces, each of which arrives by itself.

In one loop with the gateway, so that nothing depends on which process is faster. It can be told to send nothing more,
and then waits to be hung up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Self

from tests.support.waiting import near

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TURNS = 8
"""Turns of the loop between two pieces: enough to send one and to read it at the other end."""
END_S_MAX = 30.0


def head(status: int = 200, content_type: str = "application/json", **headers: str) -> bytes:
    """Return the head of an answer in chunks."""
    named = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", "transfer-encoding: chunked", *named]
    return "\r\n".join([*lines, "", ""]).encode()


def pieces(*texts: str, ended: bool = True) -> list[bytes]:
    """Return texts as chunks, and the end of the answer unless it is not `ended`."""
    chunks = [b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()) for text in texts]
    return [*chunks, b"0\r\n\r\n"] if ended else chunks


def event(text: str | None = None, *, finish: bool = False, usage: bool = False) -> str:
    """Return an event of a chat stream."""
    choices = [] if usage else [{"index": 0, "delta": {"content": text} if text else {}}]
    if finish:
        choices[0]["finish_reason"] = "stop"
    document: dict[str, object] = {"id": "c", "object": "chat.completion.chunk", "model": "sim", "choices": choices}
    if usage:
        document["usage"] = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return f"data: {json.dumps(document)}\n\n"


WHOLE = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "model": "sim",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 64}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
)


class PacedEngine:
    """Answers each request with `answer`, on connections that are kept. An async context manager."""

    def __init__(self) -> None:
        self.answer: list[bytes] = []
        self.breaks_off = False
        """Whether the connection ends where the answer does."""
        self.silent: Callable[[], bool] = lambda: False
        """Asked before every piece: whether to send nothing more."""
        self.begins: Callable[[], bool] = lambda: True
        """Asked before the first piece: whether it is time."""
        self.running = 0
        self.connections = 0
        self.received = 0
        self._server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        """One for each connection."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self.connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection may carry another."""
        asked = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.partition(b":")[2] for line in asked.split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0]))
        self.received += 1
        self.running += 1
        try:
            await near(lambda: self.begins() or self.silent(), "it is time to answer")
            for piece in self.answer:
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                if self.silent():
                    async with asyncio.timeout(END_S_MAX):
                        await reader.read()
                    return False
                writer.write(piece)
            return not self.breaks_off
        finally:
            self.running -= 1
