"""Runs engines: one uvicorn server on a socket that is bound before anything else, so that its port is its own.

SIGTERM and SIGINT stop at once: running streams are cut, as they are when an engine's pod is killed.
"""

import socket

import uvicorn

from gateway.dev.engine.app import EngineApp
from gateway.dev.engine.http import ResettableProtocol
from gateway.dev.engine.options import EngineOptions

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises OSError when the port is taken."""
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


def serve(options: EngineOptions, listener: socket.socket) -> None:
    """Serve one engine on `listener` until a signal. uvicorn raises the signal again when it is done."""
    config = uvicorn.Config(
        EngineApp(options),
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
    uvicorn.Server(config).run(sockets=[listener])
