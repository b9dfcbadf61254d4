"""A TCP proxy before a server, for tests that lose connections the way networks do: without a sign, cut, or late."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from types import TracebackType

PIECE_BYTES = 65_536
_Pair = tuple[socket.socket, socket.socket]


class Proxy:
    """Forwards connections to the server that `address` (a URL) names. A context manager."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._ending = threading.Event()
        self._late_s = 0.0
        self._open: dict[_Pair, list[threading.Thread]] = {}
        self._acceptor = threading.Thread(target=self._accept)
        userinfo, at, _ = parts.netloc.rpartition("@")
        host, port = self._listener.getsockname()
        self.address = urlunsplit(parts._replace(netloc=f"{userinfo}{at}{host}:{port}"))
        """The URL of the same server through this proxy."""

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self.thaw()
        self.cut()
        for threads in list(self._open.values()):
            for thread in threads:
                thread.join()
        self._listener.close()

    def freeze(self) -> None:
        """From now on forward nothing, and say nothing of it; connections stay open, new ones are accepted."""
        self._flows.clear()

    def thaw(self) -> None:
        """Forward again, also what was held back."""
        self._flows.set()

    def delay(self, seconds: float) -> None:
        """From now on forward each piece so much later than the one before it; 0: at once."""
        self._late_s = seconds

    def cut(self) -> None:
        """Close all connections there are now."""
        for pair in list(self._open):
            for each in pair:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            pair = (client, server)
            ended = threading.Barrier(2)
            ways = ((client, server), (server, client))
            self._open[pair] = [threading.Thread(target=self._forward, args=(pair, *way, ended)) for way in ways]
            for thread in self._open[pair]:
                thread.start()

    def _forward(self, pair: _Pair, source: socket.socket, target: socket.socket, ended: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                self._flows.wait()
                if self._late_s:
                    self._ending.wait(self._late_s)
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if ended.wait() == 0:  # both ways have ended, and one of the two cleans up
            for each in pair:
                each.close()
            del self._open[pair]
