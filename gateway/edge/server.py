"""The server: uvicorn with the gateway's own protocol, and with signals, logging and start-up left to `gateway.app`.

While it drains it goes on listening: probes and clients hear that this replica takes nothing new, instead of finding
nobody. uvicorn's own shutdown, which begins by closing the listener, comes when the last request has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING

import uvicorn

from gateway.edge.protocol import BoundedProtocol

if TYPE_CHECKING:
    from collections.abc import Generator

    from gateway.edge.surface import Surface

CANCELLED_S_MAX = 5.0
"""How long requests that were cancelled at the end of the drain may take to settle."""

_CLOSE = (b"connection", b"close")


class GatewayServer(uvicorn.Server):
    """uvicorn's server, without its handling of signals: it would end the process by them instead of with 0."""

    def __init__(self, config: uvicorn.Config, *, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._drain_timeout_s = drain_timeout_s
        self._drain_until_s = -math.inf

    def drain(self) -> None:
        """Let the requests under way finish, then exit. Until then new connections are answered, and closed at once.

        Kept connections end now or with the answer they wait for: a client that retried on one would meet this
        replica again.
        """
        self._drain_until_s = time.monotonic() + self._drain_timeout_s
        self.config.encoded_headers = [*self.config.encoded_headers, _CLOSE]
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        for connection in list(self.server_state.connections):
            # One that has not asked anything yet may be about to: it is owed an answer.
            if isinstance(connection, BoundedProtocol) and connection.cycle is not None:
                connection.shutdown()
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening, ten times a second: not before the last request has ended, or its time."""
        if not await super().on_tick(counter):
            return False
        left_s = self._drain_until_s - time.monotonic()
        if not self.force_exit and left_s > 0 and self.server_state.tasks:
            return False
        self.config.timeout_graceful_shutdown = math.ceil(max(left_s, 0.0))
        return True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `gateway.app`."""
        yield

    async def wait_for_requests(self) -> None:
        """Wait a moment for requests that were cancelled at the end of the drain, or are now, to settle."""
        tasks = list(self.server_state.tasks)
        if self.force_exit:  # then uvicorn has left them alone
            for task in tasks:
                task.cancel()
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
