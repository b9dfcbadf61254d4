"""The client's side of one answer: its head, keep-alives while the engine thinks, back-pressure, and how it ends.

Nothing goes out before the request's OPEN record is in the ledger. Keep-alives commit status 200, so from then
on a failure can only be an event in the stream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from gateway.edge.dialects import OPENAI
from gateway.edge.errors import Header, error_event
from gateway.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.edge.asgi import Send
    from gateway.edge.dialects import Dialect
    from gateway.errors import GatewayError


_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class AnswerConnection(Protocol):
    """The server's connection that the answer goes out on."""

    def send_whole(self, status: int, headers: list[Header], body: bytes) -> bool:
        """Write a whole answer at once; False: nothing was written, it has to go by ASGI's messages."""
        ...

    def break_off(self) -> None:
        """Send what is written, then close without ending the answer, so that the client sees it was cut."""
        ...


class AsgiSink:
    """See `gateway.relay.relay.Sink`."""

    __slots__ = (
        "_connection", "_dialect", "_headers", "_hold", "_keep_alive", "_send", "_whole", "content_sent", "started",
    )  # fmt: skip

    def __init__(
        self,
        send: Send,
        hold: Callable[[], Awaitable[None]],
        headers: list[Header],
        connection: AnswerConnection | None,
        dialect: Dialect = OPENAI,
    ) -> None:
        self._send = send
        self._dialect = dialect
        self._hold = hold
        self._headers = headers
        self._connection = connection
        self._keep_alive: asyncio.Task[None] | asyncio.TimerHandle | None = None
        self.started = False
        """Whether the head went out: no status can be sent any more."""
        self.content_sent = False
        self._whole = False
        """Whether what has begun is a whole answer, which no event fits into."""

    def keep_alive(self, every_s: float) -> None:
        """From now until the first content, send a sign of life every `every_s` seconds."""
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._keep_alive = loop.create_task(self._send_keep_alives(every_s))

        self._keep_alive = loop.call_later(every_s, begin)

    async def answer(self, body: bytes) -> None:
        """Send a whole JSON answer with status 200."""
        await self._hold()
        self.content_sent = True
        headers = [*self._headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if self._connection is not None and self._connection.send_whole(200, headers, body):
            self.started = self._whole = True
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.started = self._whole = True
        await self._send({"type": "http.response.body", "body": body})

    async def write(self, events: bytes) -> None:
        """Send events, after the stream's head where that has not gone out yet."""
        if not self.content_sent:
            await self._begin_content()
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, last: bytes) -> None:
        """Send the last events and end the stream properly."""
        if not self.content_sent:
            await self._begin_content()
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with an error event, and a cut connection where a repetition may help.

        Clients take a cut for a reason to try again, also when the event before it says that this is in vain: some see
        the cut first. So the event alone, and a proper end, must tell of what is permanent. A whole answer that has
        begun can only be cut.
        """
        await self.stop_keep_alive()
        if self._whole:
            self.cut()
            return
        event = error_event(error, self._dialect)
        await self._send({"type": "http.response.body", "body": event, "more_body": not error.permanent})
        if not error.permanent:
            self.cut()

    def cut(self) -> None:
        """Close the connection without ending the answer."""
        if self._connection is not None:
            self._connection.break_off()

    async def stop_keep_alive(self) -> None:
        """Stop the keep-alives; when one is being sent to a slow reader, after it."""
        keep_alive, self._keep_alive = self._keep_alive, None
        if keep_alive is None:
            return
        keep_alive.cancel()
        if isinstance(keep_alive, asyncio.Task):
            await asyncio.wait((keep_alive,))

    async def _begin_content(self) -> None:
        await self.stop_keep_alive()
        await self._begin_stream()
        self.content_sent = True

    async def _begin_stream(self) -> None:
        if not self.started:
            await self._hold()
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": [*self._headers, *_STREAM_HEADERS]}
            )
            self.started = True

    async def _send_keep_alives(self, every_s: float) -> None:
        while True:
            try:
                await self._begin_stream()
            except LedgerUnavailable:  # the content will meet it, too, and tell the client
                return
            await self._send({"type": "http.response.body", "body": self._dialect.keep_alive, "more_body": True})
            await asyncio.sleep(every_s)
