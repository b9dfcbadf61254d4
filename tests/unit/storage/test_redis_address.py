"""Addresses of Redis: what each form says, and what is wrong with one that says nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from gateway.errors import ConfigError
from gateway.settings.secrets import _redis
from gateway.storage.redis import RedisClients
from gateway.storage.redis_address import HOSTS_MAX, RedisAddress, Setup

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = (("a", 1), ("b", 6379))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress(Setup.SINGLE, (("h", 6379),))),
        ("redis://", RedisAddress(Setup.SINGLE, (("localhost", 6379),))),
        ("redis://u:p%40%2F@h:1/2", RedisAddress(Setup.SINGLE, (("h", 1),), username="u", password="p@/", database=2)),
        ("redis://:p@[::1]:1", RedisAddress(Setup.SINGLE, (("::1", 1),), password="p")),
        (
            "redis://h?db=3&protocol=2",
            RedisAddress(Setup.SINGLE, (("h", 6379),), database=3, options=(("protocol", "2"),)),
        ),
        ("unix:///run/redis.sock?db=1", RedisAddress(Setup.SINGLE, (), socket_path="/run/redis.sock", database=1)),
        ("redis+cluster://a:1,b", RedisAddress(Setup.CLUSTER, HOSTS)),
        ("redis+cluster://u@a:1,b/0", RedisAddress(Setup.CLUSTER, HOSTS, username="u")),
        (
            "redis+sentinel://:p@a:1,b/main/4?sentinel_username=s&sentinel_password=t%40",
            RedisAddress(
                Setup.SENTINEL,
                (("a", 1), ("b", 26379)),
                password="p",
                database=4,
                primary_name="main",
                sentinel_username="s",
                sentinel_password="t@",
            ),
        ),
        (
            "rediss://h",
            RedisAddress(Setup.SINGLE, (("h", 6379),), tls=True, options=(("ssl_check_hostname", "true"),)),
        ),
    ],
)
def test_an_address_is_read(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address
    assert _redis(SecretStr(url)).get_secret_value() == url, "the settings let it pass"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://secret@h", "must start with redis://"),
        ("redis:h", "must start with redis://"),
        ("redis://:secret@a,b", "several hosts are those of a cluster"),
        ("redis://:secret@h:port", "a port is a number"),
        ("redis://:secret@h:0", "a port is a number"),
        ("redis://:secret@h:65536", "a port is a number"),
        ("redis://:secret@[::1", "stands in brackets"),
        ("redis://:secret@h/main", "the database is a number"),
        ("redis+cluster://:secret@a/1", "a cluster has the database 0 alone"),
        ("redis+cluster://:secret@a?db=0", "no option 'db'"),
        ("redis+cluster://:secret@a,,b", "a host's name is missing"),
        ("redis+cluster://", "a host's name is missing"),
        ("redis+sentinel://:secret@a", "the name of the primary is missing"),
        ("redis+sentinel://:secret@a/main/x", "the database is a number"),
        ("redis+cluster://" + ",".join(["h"] * (HOSTS_MAX + 1)), "more than 64 hosts"),
        ("redis://:secret@h?ssl_ca_certs=x", "an option of TLS"),
        ("rediss://:secret@h?ssl_ca_certs=/nowhere", "'ssl_ca_certs' names is not there"),
        ("rediss://:secret@h?ssl_cert_reqs=no", "required or optional or none"),
        ("rediss://:secret@h?ssl_check_hostname=1", "true or false"),
        ("redis://:secret@h?protocol=4", "2 or 3"),
        ("redis://:secret@h?sentinel_password=x", "no option 'sentinel_password' here"),
        ("redis://:secret@h?socket_timeout=1", "no option 'socket_timeout' here; there are db, protocol"),
    ],
)
def test_what_is_no_address_is_told_without_quoting_it(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_REDIS_URL") as caught:
        RedisAddress.parse(url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_password_is_shown() -> None:
    assert "secret" not in repr(RedisAddress.parse("redis://:secret@h"))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "rediss+sentinel"])
async def test_each_kind_of_connection_can_be_made(scheme: str, tmp_path: Path) -> None:
    """And is one that gives its socket away; options reach it, also those of the sentinels."""
    authority = tmp_path / "authority.pem"
    authority.touch()
    options = f"?ssl_ca_certs={authority}&protocol=2" if scheme.startswith("rediss") else "?protocol=2"
    clients = RedisClients(f"{scheme}://u:p@h:1/{'main/3' if 'sentinel' in scheme else '3'}{options}", 0.05)
    connection = clients.only().connection_pool.make_connection()  # type: ignore[no-untyped-call] # untyped there
    assert (connection.username, connection.password, connection.db) == ("u", "p", 3)
    assert callable(connection.hand_over)
    assert hasattr(connection, "ssl_context") == scheme.startswith("rediss")
    if hasattr(connection, "ssl_context"):
        assert connection.ssl_context.check_hostname
        assert connection.ssl_context.ca_certs == str(authority)
    await asyncio.wait_for(clients.aclose(), 5)
