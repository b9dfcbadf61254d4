"""Ways in which a Redis fails, each made on a real server and undone: context managers over a server behind a proxy."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import redis

from gateway.dev.redis import start_redis
from tests.support.frozen import frozen
from tests.support.redis_setups import client_of, kill
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from gateway.dev.children import RunningServer
    from tests.support.proxy import Proxy

LATE_S = 1.0
LOADED_KEYS = 400
LOADED_BYTES = 100_000
LOAD_DELAY_US = 10_000
"""A key; between some twenty of them, Redis listens to its clients."""


@dataclass
class Faulty:
    """A server that can be started again at its place, and the proxy before it."""

    server: RunningServer
    proxy: Proxy

    def client(self) -> redis.Redis:
        """Return a client that goes past the proxy."""
        return client_of(self.server)


@contextmanager
def slow(at: Faulty) -> Iterator[None]:
    """Answer, but after any patience."""
    at.proxy.delay(LATE_S)
    try:
        yield
    finally:
        at.proxy.delay(0)
        at.proxy.cut()


@contextmanager
def half_dead(at: Faulty) -> Iterator[None]:
    """Accept connections, and never answer."""
    at.proxy.freeze()
    try:
        yield
    finally:
        at.proxy.cut()
        at.proxy.thaw()


@contextmanager
def paused(at: Faulty) -> Iterator[None]:
    """Keep everything and do nothing."""
    with frozen(at.server):
        yield


@contextmanager
def killed(at: Faulty) -> Iterator[None]:
    """Be gone at once, and come back empty."""
    kill(at.server)
    try:
        yield
    finally:
        at.server = start_redis(at.server.data, at.server.data / "logs")


@contextmanager
def read_only(at: Faulty) -> Iterator[None]:
    """Be the replica of a primary that is not there."""
    with at.client() as client:
        client.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def full(at: Faulty) -> Iterator[None]:
    """Have no memory left, and evict nothing."""
    with _configured(at, maxmemory="1"):
        yield


@contextmanager
def loading(at: Faulty) -> Iterator[None]:
    """Read a data set back, slowly."""
    with at.client() as client, at.client() as reloading:
        client.execute_command("DEBUG", "POPULATE", LOADED_KEYS, "populated", LOADED_BYTES)
        client.config_set("rdbcompression", "no")
        client.config_set("key-load-delay", LOAD_DELAY_US)
        connection = cast("Any", reloading).connection_pool.get_connection()
        connection.send_command("DEBUG", "RELOAD")
        wait_for(lambda: _says(client, "LOADING"), "it loads")
        try:
            yield
        finally:
            wait_for(lambda: _done(lambda: client.config_set("key-load-delay", 0)), "it loads fast")
            connection.read_response()
            connection.disconnect()
            client.delete(*client.scan_iter("populated:*", count=LOADED_KEYS))


@contextmanager
def crowded(at: Faulty) -> Iterator[None]:
    """Take no client more, after those of before have gone."""
    with at.client() as client:
        client.ping()
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set("maxclients", 1_000)


@contextmanager
def locked(at: Faulty) -> Iterator[None]:
    """Have another password, for whoever connects anew."""
    with at.client() as client:
        known = client.config_get("requirepass")["requirepass"]
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set("requirepass", known)


@contextmanager
def _configured(at: Faulty, **settings: str) -> Iterator[None]:
    with at.client() as client:
        known = {name: client.config_get(name)[name] for name in settings}
        for name, value in settings.items():
            client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in known.items():
                client.config_set(name, value)


def _says(client: redis.Redis, word: str) -> bool:
    try:
        client.get("pst:{any}")
    except redis.RedisError as error:
        return word in str(error).upper()
    return False


def _done(act: Callable[[], object]) -> bool:
    try:
        act()
    except redis.RedisError:
        return False
    return True


FAULTS: dict[str, Callable[[Faulty], AbstractContextManager[None]]] = {
    made.__name__: made for made in (slow, half_dead, paused, killed, read_only, full, loading, crowded, locked)
}
"""By name: what makes Redis count as away until it is undone."""
