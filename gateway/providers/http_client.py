"""An engine behind HTTP/1.1: keeps idle connections, opens new ones with a deadline, sends requests over them."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.errors import UpstreamConnectTimeout, UpstreamFailed, UpstreamStale, UpstreamUnreachable
from gateway.providers.http_protocol import HttpConnection

if TYPE_CHECKING:
    from gateway.domain.upstream import UpstreamRequest
    from gateway.providers.http_response import HttpResponse

IDLE_CONNECTIONS_MAX = 512
IDLE_S_MAX = 4.0
"""Engines on uvicorn close idle connections after 5 s; leaving first avoids writing into a closing socket."""


class HttpUpstream:
    """`UpstreamConnection` over plain or TLS sockets to one base address, such as `http://10.0.0.5:8000`."""

    def __init__(self, base_url: str, *, connect_s: float) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http address: {base_url}")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._base_path = parts.path.rstrip("/").encode()
        self._host_header = b"host: " + parts.netloc.rpartition("@")[2].encode() + b"\r\n"
        self._connect_s = connect_s
        self._idle: deque[HttpConnection] = deque()
        self._open: set[HttpConnection] = set()
        self._retired = False

    async def send(self, request: UpstreamRequest) -> HttpResponse:
        """Send a request; see `UpstreamConnection.send`.

        A kept connection may have been closed by the engine at this very moment. Or the engine has worked on the
        request and died: from here the two look alike, so whether it is sent again is not decided here.
        """
        head = b"%b %b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            request.method,
            self._base_path,
            request.path.encode(),
            self._host_header,
            request.headers,
            len(request.body),
        )
        connection = self._take_idle()
        if connection is not None:
            response = connection.start(head, request)
            try:
                await response.head()
            except UpstreamFailed as error:
                if connection.answered:
                    raise
                while self._idle:  # as old as the one that broke, or older
                    self._idle.pop().close()
                raise UpstreamStale(error.message) from None
            return response
        connection = await self._connect()
        response = connection.start(head, request)
        await response.head()
        return response

    async def close(self) -> None:
        """Close idle connections now, and the others when their responses have ended."""
        self._retired = True
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> HttpConnection | None:
        oldest_s = asyncio.get_running_loop().time() - IDLE_S_MAX
        while self._idle:
            connection = self._idle.pop()  # the most recently used: the rest may grow old and go
            if connection.closed:
                continue
            if connection.idle_since_s < oldest_s:
                connection.close()
                continue
            return connection
        return None

    def _keep(self, connection: HttpConnection) -> None:
        if self._retired:
            connection.close()
            return
        idle = self._idle
        idle.append(connection)
        oldest_s = connection.idle_since_s - IDLE_S_MAX
        while idle and (len(idle) > IDLE_CONNECTIONS_MAX or idle[0].idle_since_s < oldest_s):
            idle.popleft().close()

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(self._keep, self._open.discard),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamConnectTimeout("the engine does not accept connections in time") from None
        except OSError as error:
            raise UpstreamUnreachable("the engine cannot be reached") from error
        if connection.closed:
            raise UpstreamUnreachable("the engine broke the connection off")
        self._open.add(connection)
        return connection

    def __repr__(self) -> str:
        return f"HttpUpstream({self._host}:{self._port}, idle={len(self._idle)}, open={len(self._open)})"
