"""One HTTP/1.1 connection to the server under load: kept alive, opened again when it was closed.

asyncio and httptools, no more than a load generator needs: one request at a time, bodies by their chunks.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

from gateway.dev.replay.errors import ConnectionLost, ReplayError, Unreadable

CONNECT_S_MAX = 10.0
# From one read to the next. An engine may think for long before its first token.
SILENCE_S_MAX = 600.0
READ_BYTES = 65_536
HEAD_READS_MAX = 64


@dataclass(frozen=True, slots=True)
class Target:
    """Where a base URL leads."""

    host: str
    port: int
    tls: bool
    path: str

    @classmethod
    def of(cls, base_url: str) -> "Target":
        """Read a base URL, `http://host:port/v1`. Raises ReplayError when it is none."""
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError as error:
            raise ReplayError(f"'{base_url}' is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ReplayError(f"'{base_url}' is no base URL: give one like http://127.0.0.1:8000/v1")
        if parts.username is not None:
            raise ReplayError("give the key with --api-key or PENSTOCK_API_KEY, not in the URL")
        if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
            raise ReplayError("the base URL has characters that no URL has")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the `host` header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(slots=True)
class Answer:
    """The head of an answer; the body's pieces follow while it is read."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class _Collector:
    """What httptools calls while it parses one answer."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.parser: httptools.HttpResponseParser
        self.pieces: list[bytes] = []
        self.headed = self.complete = self.keeps_alive = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body is all that comes, for want of a length and of chunks."""
        return self.headed and not self.answer.headers.keys() & {"content-length", "transfer-encoding"}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.answer.status, self.headed = self.parser.get_status_code(), True

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        # The parser knows only here: then it is ready for another message.
        self.complete, self.keeps_alive = True, self.parser.should_keep_alive()


class Connection:
    """A connection to `target`, made when it is needed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Answer, AsyncGenerator[bytes, None]]:
        """Send a request and return the head of its answer and the pieces of its body, which must be read to the end.

        Raises ConnectionRefusedError and other OSErrors when nothing listens, ConnectionLost when it breaks off.
        """
        fresh = self._streams is None
        try:
            return await self._post(path, headers, body)
        except ConnectionLost as error:
            if fresh or error.after_silence:
                raise
            # The server may close an idle connection at any time: that is no failure of this request.
            return await self._post(path, headers, body)

    def close(self) -> None:
        """Close it; the next request makes a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _post(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Answer, AsyncGenerator[bytes, None]]:
        target = self._target
        if self._streams is None:
            context = ssl.create_default_context() if target.tls else None
            async with asyncio.timeout(CONNECT_S_MAX):
                self._streams = await asyncio.open_connection(target.host, target.port, ssl=context)
        reader, writer = self._streams
        lines = [f"POST {target.path}{path} HTTP/1.1", f"host: {target.authority}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        collector = _Collector()
        collector.parser = httptools.HttpResponseParser(collector)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            writer.write(body)
            await writer.drain()
        except ConnectionError:
            # A server may refuse before it has read everything: what it said is still there to be read.
            pass
        except BaseException:
            self.close()
            raise
        try:
            await self._read_head(reader, collector)
        except BaseException:
            self.close()
            raise
        return collector.answer, self._pieces(reader, collector)

    async def _read_head(self, reader: asyncio.StreamReader, collector: _Collector) -> None:
        for _ in range(HEAD_READS_MAX):
            await self._feed(reader, collector)
            if collector.headed:
                return
        raise ConnectionLost("an answer's head without end")

    async def _pieces(self, reader: asyncio.StreamReader, collector: _Collector) -> AsyncGenerator[bytes, None]:
        again = False
        try:
            while True:
                pieces, collector.pieces = collector.pieces, []
                for piece in pieces:
                    yield piece
                if collector.complete:
                    break
                await self._feed(reader, collector)
            again = collector.keeps_alive
        finally:
            if not again:
                self.close()

    async def _feed(self, reader: asyncio.StreamReader, collector: _Collector) -> None:
        """Parse what comes next. Raises ConnectionLost at the end, for nonsense, and after too long a silence."""
        try:
            async with asyncio.timeout(SILENCE_S_MAX):
                data = await reader.read(READ_BYTES)
            if not data and collector.ends_with_connection:
                collector.complete = True
                return
            if not data:
                raise ConnectionLost("the connection ended before the answer did")
            collector.parser.feed_data(data)
        except TimeoutError as error:
            raise ConnectionLost(f"no byte in {SILENCE_S_MAX:g} s", after_silence=True) from error
        except httptools.HttpParserError as error:
            raise Unreadable(f"no HTTP: {error}") from error
        except OSError as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
