"""Connections to Redis: never retrying by themselves, never waiting for long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection as SentinelManagedTlsConnection
from redis.backoff import NoBackoff

from gateway.storage.redis_address import RedisAddress, Setup

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


class _PrimaryConnection(_HandsOver, SentinelManagedConnection):
    """To whatever the sentinels call the primary at that moment."""


class _PrimaryTlsConnection(_HandsOver, SentinelManagedTlsConnection):
    pass


class RedisClients:
    """Opens clients for the servers of one address, which connect at their first command; closes them together."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Read `url` as docs/redis.md has it.

        Args:
            url: where Redis is.
            timeout_s: how long a free connection is waited for; answers have the callers' own deadlines.

        Raises:
            ConfigError: the address is none.
        """
        self.address = RedisAddress.parse(url)
        self._timeout_s = timeout_s
        self._open: list[Redis] = []

    def only(self) -> Redis:
        """Return the client of the one server there is, or of the primary that the sentinels know."""
        address = self.address
        if address.setup is Setup.SENTINEL:
            return self._primary()
        if address.socket_path:
            return self._client(_UnixConnection, path=address.socket_path, db=address.database)
        return self.at(*address.hosts[0])

    def at(self, host: str, port: int) -> Redis:
        """Return the client of one server of the address's kind: users, TLS and all."""
        kind = _TlsConnection if self.address.tls else _TcpConnection
        return self._client(kind, host=host, port=port, db=self.address.database)

    async def forget(self, client: Redis) -> None:
        """Close a client before the others."""
        self._open.remove(client)
        await client.aclose()

    async def aclose(self) -> None:
        """Close what was opened."""
        while self._open:
            await self._open.pop().aclose()

    def _client(self, kind: type[Connection | UnixDomainSocketConnection], **where: Any) -> Redis:
        pool = BlockingConnectionPool(
            connection_class=kind,
            max_connections=CONNECTIONS_MAX,
            timeout=self._timeout_s,
            **where,
            **self._connecting(),
        )
        client = Redis.from_pool(pool)
        self._open.append(client)
        return client

    def _primary(self) -> Redis:
        address = self.address
        connecting = self._connecting()
        sentinels = Sentinel(  # type: ignore[no-untyped-call] # untyped there
            address.hosts,
            sentinel_kwargs={
                **connecting,
                "username": address.sentinel_username,
                "password": address.sentinel_password,
                "socket_timeout": connecting["socket_connect_timeout"],
                "ssl": address.tls,
            },
        )
        pool = SentinelConnectionPool(  # type: ignore[no-untyped-call] # untyped there
            address.primary_name,
            sentinels,
            connection_class=_PrimaryTlsConnection if address.tls else _PrimaryConnection,
            max_connections=CONNECTIONS_MAX,
            db=address.database,
            **connecting,
        )
        client = Redis.from_pool(pool)
        self._open += [*sentinels.sentinels, client]
        return client

    def _connecting(self) -> dict[str, Any]:
        address = self.address
        options: dict[str, Any] = dict(address.options)
        if "protocol" in options:
            options["protocol"] = int(options["protocol"])
        if address.tls:
            options["ssl_check_hostname"] = options["ssl_check_hostname"] == "true"
        return {
            "username": address.username,
            "password": address.password,
            "socket_timeout": None,
            "socket_connect_timeout": max(self._timeout_s, CONNECT_S_MIN),
            "retry": Retry(NoBackoff(), 0),
            "client_name": "penstock",
            **options,
        }


def open_redis(url: str, timeout_s: float) -> Redis:
    """Return a client of the one Redis at `url`, or of the primary there; the rest is as `RedisClients` has it."""
    return RedisClients(url, timeout_s).only()
