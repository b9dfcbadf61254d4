"""The seam to an engine: one request out, one response in as bytes. What speaks HTTP behind it can be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to an engine. `headers` come ready, without host and content-length; `path` begins with a slash."""

    method: bytes
    path: str
    headers: bytes
    """Header lines, each ended by CRLF."""
    body: bytes
    first_byte_s: float
    """Seconds until the response's head must be there."""
    idle_s: float
    """Seconds that may pass between two pieces of the body."""


class UpstreamResponse(Protocol):
    """A response whose head has arrived. Header names are lower case."""

    status: int
    headers: dict[bytes, bytes]
    complete: bool
    """Whether all of it has arrived, read or not."""

    async def read(self) -> bytes:
        """Return what has arrived since, at least one byte; b"" at the end. Back-pressure is the caller not reading.

        Raises:
            UpstreamFailed: the engine broke off.
            UpstreamTimeout: it fell silent.
        """
        ...

    def leave(self) -> None:
        """Read no more, but let the engine end its response in a moment, so that its connection can be used again."""
        ...

    def abort(self) -> None:
        """Give the response up: an engine that still computes is hung up on. Harmless after the end and `leave`."""
        ...


class UpstreamConnection(Protocol):
    """An engine, as something to send requests to."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of its response.

        Cancelling this hangs up on the engine.

        Raises:
            UpstreamUnreachable, UpstreamConnectTimeout: no connection; the engine has not seen the request.
            UpstreamStale: a kept connection broke before a response. The next one will be a new one.
            UpstreamFailed: the connection broke before a response.
            UpstreamTimeout: no response within `first_byte_s`.
        """
        ...

    async def close(self) -> None:
        """Close idle connections; responses still being read end by themselves."""
        ...
