"""One replica in the test's own process and event loop: the real stages on real servers, put together as `serve` does.

For tests that have to look into it. What a client meets is the real server on a real socket, with buffers so small that
every write of more than a head waits for the reader.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gateway.app import Gateway
from gateway.edge.protocol import BoundedProtocol, bounded_protocol
from gateway.edge.server import GatewayServer, server_config
from gateway.resources import open_resources
from gateway.settings import ConfigWatcher, load_settings
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.domain.config import GatewayConfig
    from gateway.providers.http_client import HttpUpstream
    from gateway.settings import Settings

TURNS_PAUSED = 6
BUFFER_BYTES = 1
"""The kernel makes it its own least."""


@dataclass
class ReplicaHere:
    """What runs."""

    gateway: Gateway
    server: GatewayServer
    config: GatewayConfig
    port: int

    @property
    def connections(self) -> list[BoundedProtocol]:
        """The connections of clients that are open."""
        return [cast("BoundedProtocol", each) for each in self.server.server_state.connections]

    @property
    def upstreams(self) -> list[HttpUpstream]:
        """The engines' clients, in the order of penstock.yaml."""
        pools = self.gateway.router._pools.values()
        return [cast("HttpUpstream", engine.connection) for pool in pools for engine in pool.engines]

    def renew_pools(self) -> None:
        """Begin with the first engine again, and with all retries: as after a change of penstock.yaml."""
        self.gateway.router.configure(self.config)


class SlowTransport:
    """A transport whose protocol is told after each write to pause, as by one whose buffer is full."""

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Write, and pause."""
        self._transport.write(data)
        self._protocol.pause_writing()
        self._resume(TURNS_PAUSED)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _resume(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._resume, turns - 1)
        elif self._transport.is_closing() or not self._transport.get_write_buffer_size():
            self._protocol.resume_writing()


def _protocol(settings: Settings) -> type[BoundedProtocol]:
    bounded = bounded_protocol(
        header_bytes_max=settings.header_bytes_max,
        header_timeout_s=settings.header_timeout_s,
        body_bytes_max=settings.body_bytes_max,
        body_timeout_s=settings.body_timeout_s,
        connections_max=settings.connections_max,
    )

    class Narrow(bounded):  # type: ignore[misc,valid-type] # made with its bounds, at run time
        """Lets a writer wait as soon as a byte is left over, and for a few turns of the loop after each write."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            transport.set_write_buffer_limits(0)
            super().connection_made(SlowTransport(transport, self))

    return Narrow


@asynccontextmanager
async def replica_here(
    config_path: Path, postgres_dsn: str, redis_url: str, **options: str | float
) -> AsyncIterator[ReplicaHere]:
    """Yield a replica that serves on a free port; `options` are settings by name."""
    settings = load_settings(
        config=config_path,
        postgres_dsn=postgres_dsn,
        redis_url=redis_url,
        host="127.0.0.1",
        metrics_port=0,
        **{"spool_dir": str(config_path.with_name("spool")), **options},
    )
    watcher = ConfigWatcher(config_path)
    config = watcher.load()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        port = listener.getsockname()[1]
        async with open_resources(settings) as resources:
            gateway = Gateway(settings, resources, watcher, config)
            server = GatewayServer(
                server_config(
                    gateway.surface,
                    _protocol(settings),
                    host="127.0.0.1",
                    port=port,
                    keep_alive_timeout_s=5.0,
                    drain_timeout_s=5.0,
                ),
                drain_timeout_s=5.0,
            )
            await gateway.start()
            serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
            await wait_until(lambda: server.started, "the server has started")
            try:
                yield ReplicaHere(gateway, server, config, port)
            finally:
                server.drain()
                await serving
                await gateway.finish()
