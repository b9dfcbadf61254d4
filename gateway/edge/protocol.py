"""The HTTP server: uvicorn's httptools protocol with bounds on what a client may send before it is anybody.

A head has a size and a time; connections are counted; what is not HTTP gets an answer in the API's own shape. A client
that is refused while it still sends gets to see why (`gateway.edge.linger`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.edge.completions import request_headers
from gateway.edge.connection import ClientConnection
from gateway.edge.errors import render
from gateway.edge.linger import ClosesGently, Closing, Lingering
from gateway.edge.unframed import leave_unframed
from gateway.errors import BodyTooLarge, GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout, Unavailable
from gateway.units import new_event_id

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

UNREAD_BODY_GRACE_S = 10.0
"""How much longer than the body's own time a client may go on sending what nobody reads any more."""
UNREAD_BODIES_MAX = 8
"""How many times the bound on a body is read and dropped after the last answer, so that its client gets to see it."""


class BoundedProtocol(ClientConnection):
    """One client connection. Subclassed by `bounded_protocol` with the bounds as class attributes."""

    header_bytes_max: int
    header_timeout_s: float
    body_bytes_max: int
    body_timeout_s: float
    connections_max: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._same_head = False
        self._head_bytes = 0
        self._message_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """A client has come; one too many is told so."""
        super().connection_made(transport)
        if len(self.connections) > self.connections_max:
            self._write_refusal(Unavailable("too many connections", retry_after_s=1.0))
            self.transport.close()  # at once: lingering would be one more connection over the bound
            return
        self._timer = self.loop.call_later(self.header_timeout_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._end_timer()
        if self._untaken is not None:
            self._untaken.cancel()
        super().connection_lost(exc)
        self.tell_lost()

    def shutdown(self) -> None:
        """The replica ends: close, after the answer that is on its way."""
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._linger()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse what came, within the bounds."""
        if self.transport.is_closing():
            return
        self._same_head = self._in_head
        self._parse(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            if self.cycle.more_body:
                self._bound_body(len(data))
            return
        # Of a head that begins somewhere in here, less than one read goes uncounted.
        self._head_bytes = self._head_bytes + len(data) if self._same_head else 0
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
            if self.cycle.response_complete:
                self._linger()
            else:
                self._refuse(BodyTooLarge(f"the body is larger than {self.body_bytes_max} bytes"))
        elif self._timer is None:
            self.cycle.transport = ClosesGently(self.transport, self._linger)
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
        self._in_head = self._head_begun = self._same_head = False
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
        self.cycle.transport = self.transport
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is complete; what its client has not taken yet has a time."""
        served = self._served
        super().on_response_complete()
        self._bound_untaken(served)

    def break_off(self) -> None:
        """See `ClientConnection`; the client has a time to take what is written."""
        super().break_off()
        self._bound_untaken(self._served)

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

    def _bound_untaken(self, served: RequestResponseCycle | None) -> None:
        """A closed connection stays for as long as its client reads nothing, and its answer in memory with it."""
        if self._untaken is None and (size := self.transport.get_write_buffer_size()):
            self._untaken = self.loop.call_later(self.body_timeout_s, self._answer_is_late, served, size)

    def _answer_is_late(self, served: RequestResponseCycle | None, size_then: int) -> None:
        self._untaken = None
        size = self.transport.get_write_buffer_size()
        is_over = served is self._served and (self.transport.is_closing() or self._served_is_complete)
        if size and (is_over or (size == size_then and self.flow.write_paused)):
            self.transport.abort()
        else:
            self._bound_untaken(self._served)  # it has asked again since, and reads

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: GatewayError) -> None:
        """Answer and close, whether or not a request has reached the application."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or self.pipeline:
                self.transport.close()  # another answer is on its way: nothing may be written into it
                return
            cycle.disconnected = True  # whoever reads this body hears that no more comes
            cycle.message_event.set()
        self._write_refusal(error)
        self._linger()

    def _write_refusal(self, error: GatewayError) -> None:
        body, headers = render(error)
        headers += (*request_headers(new_event_id()), (b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)

    def _linger(self) -> None:
        """Close once the client has stopped sending. To the path, the connection is lost at once."""
        transport = self.transport
        if transport.is_closing():
            return
        # What is left of the body's own time is the client's, whatever it is told meanwhile.
        left_s = 0.0 if self._timer is None else self._timer.when() - self.loop.time()
        self._end_timer()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport = Closing()
        if self.cycle is not None:
            self.cycle.transport = self.transport
        Lingering(
            transport,
            self,
            bytes_max=UNREAD_BODIES_MAX * self.body_bytes_max,
            time_s_max=max(left_s, UNREAD_BODY_GRACE_S),
        )
        self.tell_lost()


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
