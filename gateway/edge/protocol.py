"""The HTTP server: uvicorn's httptools protocol with bounds on what a client may send before it is anybody.

A head has a size and a time; connections are counted; what is not HTTP gets an answer in the API's own shape. Each
request's scope carries its connection, through which the path hears of a hang-up at once and without a task of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.edge.completions import request_headers
from gateway.edge.errors import render
from gateway.edge.unframed import leave_unframed
from gateway.errors import BodyTooLarge, GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout, Unavailable
from gateway.units import new_event_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.edge.errors import Header

UNREAD_BODY_GRACE_S = 10.0
"""How much longer than the body's own time a client may go on sending what nobody reads any more."""


class BoundedProtocol(HttpToolsProtocol):
    """One client connection. Subclassed by `bounded_protocol` with the bounds as class attributes."""

    header_bytes_max: int
    header_timeout_s: float
    body_bytes_max: int
    body_timeout_s: float
    connections_max: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._message_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._on_lost: Callable[[], None] | None = None
        self._lost = False

    # --- what the path uses

    def watch(self, on_lost: Callable[[], None]) -> None:
        """Call `on_lost` once when the client hangs up, at once when it has."""
        if self._lost:
            on_lost()
        else:
            self._on_lost = on_lost

    def unwatch(self, on_lost: Callable[[], None]) -> None:
        """End `watch`, unless the next request on the connection has already taken it over."""
        if self._on_lost == on_lost:
            self._on_lost = None

    @property
    def body_arrived(self) -> bool:
        """Whether the body of the newest request has come in whole; earlier ones' have."""
        return not self.cycle.more_body

    def break_off(self) -> None:
        """Send what is written, then close without ending the answer."""
        self.cycle.disconnected = True
        self.transport.close()

    def send_whole(self, status: int, headers: list[Header], body: bytes) -> bool:
        """Write a whole answer at once, or return False when it has to go by ASGI's messages.

        The same bytes as by two messages, for a fifth of the time: the headers are the gateway's own and need no
        checking. `headers` must tell the body's length.
        """
        cycle = self.cycle
        if (
            cycle.response_started
            or cycle.disconnected
            or self.pipeline  # then `cycle` is not the one that is being answered
            or self.flow.write_paused
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    # --- what the event loop and the parser call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            self._refuse(Unavailable("too many connections", retry_after_s=1.0))
            return
        self._timer = self.loop.call_later(self.header_timeout_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._end_timer()
        super().connection_lost(exc)
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        in_head = self._in_head
        self._parse(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            if self.cycle.more_body:
                self._bound_body(len(data))
            return
        self._head_bytes = self._head_bytes + len(data) if in_head else 0
        if self._head_bytes > self.header_bytes_max:
            self._refuse(HeadersTooLarge(f"the request head is larger than {self.header_bytes_max} bytes"))
        elif self._timer is None and self._head_begun:
            self._timer = self.loop.call_later(self.header_timeout_s, self._head_is_late)

    def _bound_body(self, size: int) -> None:
        """A body that is not all there has a time, and its bytes a number: framing, trailers and all.

        What is decoded of it has a bound of its own where it is read; this one is for what nobody reads.
        """
        self._message_bytes += size
        if self._message_bytes > 2 * self.body_bytes_max:
            self._refuse(BodyTooLarge(f"the body is larger than {self.body_bytes_max} bytes"))
        elif self._timer is None:
            self._timer = self.loop.call_later(self.body_timeout_s + UNREAD_BODY_GRACE_S, self._body_is_late)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._declining_upgrade:
            return
        super().on_message_begin()
        self._in_head = self._head_begun = True
        self._field_bytes = self._message_bytes = 0
        self.scope["penstock.connection"] = self  # type: ignore[typeddict-unknown-key] # an extension of the scope

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        if not self._declining_upgrade:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Those after the body are dropped: they could replace what was checked (RFC 9110, 6.5.1)."""
        if self._declining_upgrade or not self._in_head:
            return
        self._field_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; who reads the body has a time for it."""
        if self._declining_upgrade:
            return
        self._in_head = self._head_begun = False
        self._head_bytes = 0
        self._end_timer()
        if self._field_bytes + len(self.url) > self.header_bytes_max:
            self._refuse(HeadersTooLarge(f"the request head is larger than {self.header_bytes_max} bytes"))
            return
        super().on_headers_complete()
        if self.scope["http_version"] < "1.1":
            leave_unframed(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if not self.transport.is_closing() and self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole. One that offers to upgrade is not: the parser leaves its body to the new protocol."""
        if self.parser.should_upgrade():
            return
        self._end_timer()
        if self.transport.is_closing() or self.cycle is None:
            return
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        if not self.transport.is_closing():
            self._refuse(InvalidRequest("this is not a valid HTTP request"))

    _head_begun = False
    _declining_upgrade = False
    _field_bytes = 0

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                self._decline_upgrade()
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _decline_upgrade(self) -> None:
        """Go on as if nothing had been offered: a new parser is told how the body is framed, and no more.

        Java's own client offers HTTP/2 with every request over plain HTTP, also with those that have a body.
        """
        framing = (b"content-length", b"transfer-encoding")
        head = [b"POST / HTTP/1.1", *(b"%b: %b" % header for header in self.headers if header[0] in framing)]
        self.parser = httptools.HttpRequestParser(self)
        self._declining_upgrade = True
        try:
            self.parser.feed_data(b"\r\n".join((*head, b"", b"")))
        finally:
            self._declining_upgrade = False

    def _head_is_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            if self._head_begun or self._head_bytes:
                self._refuse(RequestTimeout("the request head did not arrive in time"))
            else:
                self.transport.close()

    def _body_is_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: GatewayError) -> None:
        """Answer and close, without a request ever having reached the application."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline:
                self.transport.close()  # another answer is on its way: nothing may be written into it
                return
            cycle.disconnected = True  # whoever reads this body hears that no more comes
            cycle.message_event.set()
        body, headers = render(error)
        headers += (*request_headers(new_event_id()), (b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        self.transport.close()


def bounded_protocol(
    *, header_bytes_max: int, header_timeout_s: float, body_bytes_max: int, body_timeout_s: float, connections_max: int
) -> type[BoundedProtocol]:
    """Return the protocol class with these bounds; uvicorn makes one object of it for each connection."""
    return type(
        "Protocol",
        (BoundedProtocol,),
        {
            "header_bytes_max": header_bytes_max,
            "header_timeout_s": header_timeout_s,
            "body_bytes_max": body_bytes_max,
            "body_timeout_s": body_timeout_s,
            "connections_max": connections_max,
        },
    )
