"""A client's connection as the path of a request sees it.

Each request's scope carries it: the path hears of a hang-up at once and without a task of its own, and writes whole
answers past ASGI's messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.edge.errors import Header


class ClientConnection(HttpToolsProtocol):
    """One client connection; `gateway.edge.protocol` bounds what may be sent over it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost: Callable[[], None] | None = None
        self._lost = False
        self._served: RequestResponseCycle | None = None
        """The request that is being answered; uvicorn's own `cycle` is the newest, which may wait behind it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: for the request that is being answered, too, and not for the newest alone."""
        self._disconnect_served()
        super().connection_lost(exc)

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

    def tell_lost(self) -> None:
        """The client has hung up, or nothing more will be written to it: who watches hears of it."""
        self._lost = True
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()

    @property
    def body_arrived(self) -> bool:
        """Whether the body of the newest request has come in whole; earlier ones' have."""
        return not self.cycle.more_body

    @property
    def _served_is_complete(self) -> bool:
        return self._served is not None and self._served.response_complete

    def break_off(self) -> None:
        """Send what is written, then close without ending the answer."""
        self._disconnect_served()
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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _disconnect_served(self) -> None:
        if self._served is not None and not self._served_is_complete:
            self._served.disconnected = True
            self._served.message_event.set()
