"""A TCP proxy before a server, for tests that lose connections the way networks do: without a sign, or cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from types import TracebackType

PIECE_BYTES = 65_536


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
        self._ended = False
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        userinfo, at, _ = parts.netloc.rpartition("@")
        host, port = self._listener.getsockname()
        self.address = urlunsplit(parts._replace(netloc=f"{userinfo}{at}{host}:{port}"))
        """The URL of the same server through this proxy."""

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self.thaw()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def freeze(self) -> None:
        """From now on forward nothing, and say nothing of it; connections stay open, new ones are accepted."""
        self._flows.clear()

    def thaw(self) -> None:
        """Forward again, also what was held back."""
        self._flows.set()

    def cut(self) -> None:
        """Close all connections there are now."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
            except OSError:
                continue
            for one, other in ((client, server), (server, client)):
                self._sockets.append(one)
                thread = threading.Thread(target=self._forward, args=(one, other))
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                self._flows.wait()
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
