"""The server: uvicorn with the gateway's own protocol, and with signals, logging and start-up left to `gateway.app`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

    from gateway.edge.protocol import BoundedProtocol
    from gateway.edge.surface import Surface

CANCELLED_S_MAX = 5.0
"""How long requests that were cancelled at the end of the drain may take to settle."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server, without its handling of signals: it would end the process by them instead of with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `gateway.app`."""
        yield

    async def wait_for_requests(self) -> None:
        """Wait a moment for requests that were cancelled at the end of the drain to settle."""
        tasks = list(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CANCELLED_S_MAX)


def server_config(
    surface: Surface,
    protocol: type[BoundedProtocol],
    *,
    host: str,
    port: int,
    keep_alive_timeout_s: float,
    drain_timeout_s: float,
) -> uvicorn.Config:
    """Return uvicorn's configuration, with logging, signals and start-up left to `gateway.app`."""
    return uvicorn.Config(
        surface,
        host=host,
        port=port,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=2048,
        timeout_keep_alive=max(int(keep_alive_timeout_s), 1),
        timeout_graceful_shutdown=max(int(drain_timeout_s), 0),
    )
