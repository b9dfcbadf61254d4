"""Runs engines: one uvicorn server for all of them, each on a socket that is bound before anything else.

One server means one event loop, one handler for signals and one start, however many engines there are. SIGTERM and
SIGINT stop all at once: running streams are cut, as they are when an engine's pod is killed.
"""

import contextlib
import errno
import resource
import socket
from collections.abc import Sequence

import uvicorn

from gateway.dev.engine.app import EngineApp
from gateway.dev.engine.http import Receive, ResettableProtocol, Scope, Send
from gateway.dev.engine.options import EngineOptions

BACKLOG = 2048
PORT_MAX = 65_535


# As many as are asked for where the hard limit allows it: each client is one.
FILES_WANTED = 65_536
# For the event loop, the program's own files and a few clients.
FILES_SPARE = 32
NEXT_STEP = {
    errno.EADDRINUSE: "stop what serves there, or choose another --port",
    errno.EACCES: "choose a --port from 1024 up",
    errno.EADDRNOTAVAIL: "give a --host that this machine has",
    errno.EMFILE: "allow more open files (ulimit -n), or run fewer --engines",
}


class CannotServe(OSError):
    """Something that serving needs cannot be had; the message names it, and says why and what to do."""


def allow_files(engines: int) -> None:
    """Raise the soft limit of open files for so many engines and their clients.

    Raises CannotServe when the hard limit has no room for the engines themselves.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < engines + FILES_SPARE:
        needed = engines + FILES_SPARE
        raise CannotServe(
            f"{engines} engines need {needed} open files, and the limit is {allowed}: {NEXT_STEP[errno.EMFILE]}"
        )


def bind(host: str, port: int, count: int = 1) -> list[socket.socket]:
    """Return `count` listening sockets on `port` and the ports after it; on free ports where `port` is 0.

    Raises CannotServe, with none of them bound, when one cannot be.
    """
    with contextlib.ExitStack() as bound:
        listeners = []
        for number in range(port, port + count) if port else [0] * count:
            try:
                listeners.append(bound.enter_context(_bound(host, number)))
            except OSError as error:
                raise CannotServe(_why(host, number, error)) from error
        bound.pop_all()
    return listeners


def _why(host: str, port: int, error: OSError) -> str:
    known = "give a --host that this machine has" if isinstance(error, socket.gaierror) else None
    step = known or NEXT_STEP.get(error.errno or 0)
    return f"cannot serve on {host}:{port}: {error.strerror}" + (f"; {step}" if step else "")


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
