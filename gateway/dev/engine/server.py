"""Runs engines: one uvicorn server for all of them, each on a socket that is bound before anything else.

One server means one event loop, one handler for signals and one start, however many engines there are. SIGTERM and
SIGINT stop all at once: running streams are cut, as they are when an engine's pod is killed.
"""

import contextlib
import errno
import socket
from collections.abc import Sequence

import uvicorn

from gateway.dev.engine.app import EngineApp
from gateway.dev.engine.http import Receive, ResettableProtocol, Scope, Send
from gateway.dev.engine.options import EngineOptions

BACKLOG = 2048
PORT_MAX = 65_535


class CannotBind(OSError):
    """A port cannot be had; the message names it and says why."""


def bind(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Return `count` listening sockets on `port` and the ports after it; on free ports where `port` is 0.

    Raises CannotBind, with none of them bound, when one cannot be.
    """
    with contextlib.ExitStack() as bound:
        listeners = []
        for number in range(port, port + count) if port else [0] * count:
            try:
                listeners.append(bound.enter_context(_bound(host, number)))
            except OSError as error:
                raise CannotBind(f"cannot serve on {host}:{number}: {error.strerror}") from error
        bound.pop_all()
    return listeners


def _bound(host: str, port: int) -> socket.socket:
    if port > PORT_MAX:
        raise OSError(errno.EINVAL, f"ports end at {PORT_MAX}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Engines:
    """The ASGI application of all engines: a request belongs to the engine of the port that it came in on."""

    def __init__(self, options: EngineOptions, ports: Sequence[int]) -> None:
        self._by_port = {port: EngineApp(options) for port in ports}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self._by_port[scope["server"][1]](scope, receive, send)


def serve(options: EngineOptions, listeners: Sequence[socket.socket]) -> None:
    """Serve one engine on each of `listeners` until a signal. uvicorn raises the signal again when it is done."""
    config = uvicorn.Config(
        Engines(options, [listener.getsockname()[1] for listener in listeners]),
        http=ResettableProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        # The application logs its own failures; uvicorn would log every stream that a signal cuts.
        log_level="critical",
        timeout_graceful_shutdown=0,
    )
    uvicorn.Server(config).run(sockets=list(listeners))
