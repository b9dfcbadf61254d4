"""Requests to engines and the answers of scripted ones, for tests of the HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.upstream import UpstreamRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.domain.upstream import UpstreamResponse
    from gateway.providers.http_client import HttpUpstream
    from tests.support.raw_server import RawConnection

PATIENCE_S = 10.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nok"


def asking(body: bytes = b"{}", *, first_byte_s: float = PATIENCE_S, idle_s: float = PATIENCE_S) -> UpstreamRequest:
    """Return a request."""
    return UpstreamRequest(b"POST", "/v1/chat/completions", b"x-test: 1\r\n", body, first_byte_s, idle_s)


def answering(*answers: bytes, then_ends: bool = False) -> Callable[[RawConnection], Awaitable[None]]:
    """Return a script that answers one request after another, then closes or waits for the client to do so."""

    async def script(connection: RawConnection) -> None:
        for answer in answers:
            await connection.request()
            await connection.send(answer)
        if then_ends:
            connection.end()
        await connection.hung_up()

    return script


async def whole(response: UpstreamResponse) -> bytes:
    """Read a response to its end."""
    body = b""
    while piece := await response.read():
        body += piece
    return body


async def fetch(upstream: HttpUpstream, body: bytes = b"{}") -> bytes:
    """Ask and return the whole body of the answer, whose status is 200."""
    response = await upstream.send(asking(body))
    assert response.status == 200
    return await whole(response)
