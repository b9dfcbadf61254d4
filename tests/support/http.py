"""A plain HTTP/1.1 client for tests: whole answers, streams as they arrive, raw bytes for what no client would send.

Every request has a connection of its own, so nothing of one test is left for the next.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader
    from types import TracebackType

TIMEOUT_S = 60.0
DONE = "[DONE]"


@dataclass(frozen=True)
class Answer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a refusal, or the problem document that the control plane has instead."""
        document: dict[str, Any] = self.document
        error: dict[str, Any] = document.get("error", document)
        return error

    @property
    def request_id(self) -> str:
        """`x-request-id`."""
        return self.headers["x-request-id"]


class Stream:
    """An answer that is read event by event. A context manager: leaving it hangs up."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.cut = False
        """Whether the connection ended before the answer did; known once the events were read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    @property
    def request_id(self) -> str:
        """`x-request-id`."""
        return self.headers["x-request-id"]

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, until the end; `cut` tells which kind of end it was."""
        file = self._response.fp
        if not self._response.chunked:
            yield self._response.read()
            return
        # http.client's own reading takes a missing last chunk for an end.
        try:
            while size := int(file.readline() or b"-1", 16):
                if size < 0 or len(piece := file.read(size + 2)) < size + 2:
                    break
                yield piece[:-2]
            else:
                return
        except ConnectionError:
            pass
        self.cut = True

    def lines(self) -> Iterator[str]:
        """Yield the lines that are not empty, until the end."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode().rstrip("\r") for line in lines if line.strip())
        if rest:
            yield rest.decode()

    def data(self) -> Iterator[str]:
        """Yield the data of each event, `[DONE]` included; comments are left out."""
        for line in self.lines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")

    def chunks(self) -> list[dict[str, Any]]:
        """Read to the end and return all events but `[DONE]`, as JSON."""
        return [json.loads(data) for data in self.data() if data != DONE]

    def hang_up(self) -> None:
        """Close the connection, whatever is still to come."""
        self._response.close()
        self._connection.close()


class Http:
    """Asks one server. `key` goes into `Authorization: Bearer` unless a request says otherwise."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port = parts.hostname, parts.port
        self.key = key

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET `path`."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, document: object, headers: Mapping[str, str] | None = None) -> Answer:
        """POST `document` as JSON, or as it is when it is bytes."""
        return self.ask("POST", path, document, headers)

    def ask(self, method: str, path: str, document: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and return its whole answer."""
        connection, response = self._send(method, path, document, headers)
        try:
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def stream(self, path: str, document: object, headers: Mapping[str, str] | None = None) -> Stream:
        """POST `document` and return once the head of the answer is there."""
        return Stream(*self._send("POST", path, document, headers))

    def asked(self, path: str, document: object) -> RawConnection:
        """POST `document` and wait for nothing."""
        body = json.dumps(document).encode()
        lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {self.key}"]
        connection = self.raw()
        connection.send("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        return connection

    def raw(self) -> RawConnection:
        """Open a connection for bytes."""
        return RawConnection(self.host, self.port)

    def _send(
        self, method: str, path: str, document: object, headers: Mapping[str, str] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if self.key is not None and not given.keys() & {"authorization", "x-api-key"}:
            given["authorization"] = f"Bearer {self.key}"
        body = document if isinstance(document, bytes) or document is None else json.dumps(document).encode()
        if body is not None:
            given.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, given)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise


class RawConnection:
    """A socket to a server. A context manager: leaving it closes the socket."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, as a client that is done with it does."""
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with an RST, as a client that crashed does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def half_close(self) -> None:
        """Say that nothing more will be sent; answers can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.socket.sendall(data)

    def answer(self) -> Answer:
        """Read the next answer."""
        response = http.client.HTTPResponse(_Lent(self._file))  # type: ignore[arg-type] # all that it asks for
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def peek_line(self) -> bytes:
        """Return the beginning of what comes next, at most a line and without taking it; b"" at the end."""
        try:
            return self._file.peek().partition(b"\r\n")[0]
        except ConnectionError:
            return b""

    def read(self) -> bytes:
        """Return the next bytes, b"" when the server has closed."""
        return self._file.read1()

    def closed(self) -> bool:
        """Wait for the server to close and return whether it did; what it says meanwhile is dropped."""
        try:
            while self.read():
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


class _Lent:
    """A connection's one reader, lent to an HTTPResponse that would close it at the end of the answer."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file

    def makefile(self, _mode: str) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass
