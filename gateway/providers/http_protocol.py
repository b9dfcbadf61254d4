"""One HTTP/1.1 connection to an engine: request bytes out, response parsed by llhttp, body handed on as it arrives.

Back-pressure: above a bound of unread bytes the socket is not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from gateway.errors import GatewayError, UpstreamFailed, UpstreamTimeout
from gateway.providers.http_response import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.upstream import UpstreamRequest

HEAD_BYTES_MAX = 64 * 1024


class HttpConnection(asyncio.Protocol):
    """Carries one request at a time. `on_idle` hears when it may take another, `on_closed` when it is gone."""

    def __init__(self, on_idle: Callable[[HttpConnection], None], on_closed: Callable[[HttpConnection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._parser = httptools.HttpResponseParser(self)
        self._response: HttpResponse | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._paused = False
        self._reusable = False
        self._deadline_s = 0.0
        self._idle_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False
        """Whether it is gone, or going."""
        self.idle_since_s = 0.0
        self.answered = False
        """Whether any byte of the current response has arrived."""

    def start(self, head: bytes, request: UpstreamRequest) -> HttpResponse:
        """Write a request whose head is `head`, and return the response to come."""
        assert self._transport is not None, "the connection is open"
        assert self._response is None, "one request at a time"
        response = self._response = HttpResponse(self)
        self._head_bytes = 0
        self.answered = False
        self._idle_s = request.idle_s
        self._deadline_s = self._loop.time() + request.first_byte_s
        self._watch_deadline()
        if len(request.body) <= 16_384:
            self._transport.write(head + request.body)
        else:
            self._transport.writelines((head, request.body))
        return response

    def resume(self, response: HttpResponse) -> None:
        """Read on: the response's reader has caught up."""
        if self._paused and self._response is response and self._transport is not None:
            self._paused = False
            self._deadline_s = self._loop.time() + self._idle_s
            self._transport.resume_reading()

    def hurry(self, response: HttpResponse, seconds: float) -> None:
        """Let the response end within `seconds`, whatever still comes, or end the connection."""
        if self._response is not response:
            return
        self.resume(response)
        self._idle_s = 0.0  # what still comes does not move the deadline
        self._deadline_s = self._loop.time() + seconds
        self._watch_deadline()

    def fail(self, response: HttpResponse, error: GatewayError) -> None:
        """End the connection and the response on it."""
        if self._response is not response:
            return
        self._response = None
        response.end(error)
        self._abort()

    def close(self) -> None:
        """Close, once what was written has been sent."""
        self.closed = True
        self._end_timer()
        if self._transport is not None:
            self._transport.close()

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass, but have all of it

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.close()  # an engine that speaks unasked cannot be trusted with another request
            return
        self.answered = True
        if self._idle_s:
            self._deadline_s = self._loop.time() + self._idle_s
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            response.end(UpstreamFailed("the engine's answer is not HTTP"))
            self._response = None
            self._abort()
            return
        if self._response is None:
            self._finished()
        elif not response.status:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.fail(response, UpstreamFailed("the engine's response head is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._transport = None
        self._end_timer()
        response, self._response = self._response, None
        if response is not None:
            ended_by_close = response.status and exc is None and not self._has_length(response.headers)
            response.end(None if ended_by_close else UpstreamFailed("the engine broke the connection off"))
        self._on_closed(self)

    # --- called by the parser

    def on_message_begin(self) -> None:
        """A response begins; nobody asked for one that comes after the one that was asked for."""
        if self._response is None:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; names are lower case."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there, unless it is an interim one (1xx), which the real one follows."""
        status = self._parser.get_status_code()
        if status < 100 and self._response is not None:
            self.fail(self._response, UpstreamFailed("the engine's answer is not HTTP"))
            return
        headers, self._headers = self._headers, {}
        if status >= 200 and self._response is not None:
            self._response.headers = headers
            self._response.status = status
            self._response.wake()
            self._watch_deadline()  # silence may be bounded more tightly than the time to the first byte

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        if self._response is not None and self._response.feed(body) and not self._paused:
            self._paused = True
            assert self._transport is not None
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The response is whole, unless it is an interim one."""
        response = self._response
        if response is None or not response.status:
            return
        self._response = None
        self._reusable = self._parser.should_keep_alive()
        self._headers = {}  # trailers, which would otherwise be headers of the next response
        response.end(None)

    def _finished(self) -> None:
        """The connection may carry another request when both sides keep it alive and nothing more has come."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if self._reusable and self._transport is not None and not self._transport.is_closing():
            self.idle_since_s = self._loop.time()
            self._on_idle(self)
        else:
            self.close()

    def _abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    @staticmethod
    def _has_length(headers: dict[bytes, bytes]) -> bool:
        return b"content-length" in headers or b"chunked" in headers.get(b"transfer-encoding", b"").lower()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_deadline(self) -> None:
        if self._timer is None or self._timer.when() > self._deadline_s:
            self._end_timer()
            self._timer = self._loop.call_at(self._deadline_s, self._check_deadline)

    def _check_deadline(self) -> None:
        """The timer is put off only when it fires: neither data that arrives nor a new request costs a timer."""
        self._timer = None
        response = self._response
        if response is None:
            return
        now_s = self._loop.time()
        if now_s >= self._deadline_s and not self._paused:
            what = "fell silent" if response.status else "did not answer in time"
            self.fail(response, UpstreamTimeout(f"the engine {what}"))
            return
        self._timer = self._loop.call_at(max(self._deadline_s, now_s + 0.05), self._check_deadline)
