"""Connections to Redis: never retrying by themselves, never waiting for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import ConfigError

if TYPE_CHECKING:
    import asyncio

CONNECTIONS_MAX = 8
CONNECT_S_MIN = 0.25


class _HandsOver:
    """Lets a connection's socket be read by another protocol than the client's own, once it is connected."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None

    def hand_over(self) -> asyncio.StreamWriter:
        """Give the connected socket away; this object knows none from then on."""
        writer, self._writer, self._reader = self._writer, None, None
        assert writer is not None, "it is connected"
        return writer


class _TcpConnection(_HandsOver, Connection):
    pass


class _TlsConnection(_HandsOver, SSLConnection):
    pass


class _UnixConnection(_HandsOver, UnixDomainSocketConnection):
    pass


_HANDING_OVER = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


def open_redis(url: str, timeout_s: float) -> Redis:
    """Return a client for `url`; connects at its first command.

    Args:
        url: redis://, rediss:// or unix://, with a user and password where Redis asks for them.
        timeout_s: how long a free connection is waited for; answers have the callers' own deadlines.

    Raises:
        ConfigError: the address is none.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS_MAX,
            timeout=timeout_s,
            socket_timeout=None,
            socket_connect_timeout=max(timeout_s, CONNECT_S_MIN),
            retry=Retry(NoBackoff(), 0),
            client_name="penstock",
        )
    except ValueError as error:
        raise ConfigError(f"PENSTOCK_REDIS_URL is not a Redis address: {error}") from None
    pool.connection_class = _HANDING_OVER[pool.connection_class]
    return Redis.from_pool(pool)
