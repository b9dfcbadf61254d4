"""What PENSTOCK_REDIS_URL names: one Redis, the primary that sentinels know, or a cluster; and how to reach it.

The forms are those of docs/redis.md. No message quotes an address, which may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from gateway.errors import ConfigError

REDIS_PORT = 6379
SENTINEL_PORT = 26379
HOSTS_MAX = 64

_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_VALUES = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
_TLS_OPTIONS = frozenset({*_TLS_FILES, *_TLS_VALUES, "ssl_password"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
_VALUES = {"protocol": ("2", "3"), **_TLS_VALUES}


class Setup(StrEnum):
    """How Redis runs."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A checked address; `hosts` are those of sentinels, or of some of a cluster's nodes."""

    setup: Setup
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    primary_name: str = ""
    """What the sentinels call it."""
    socket_path: str = ""
    """Of a Redis behind a Unix socket, which has no host."""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    """As redis-py names them: TLS, and the version of the protocol."""

    def __repr__(self) -> str:
        return f"<RedisAddress {self.setup} {self.hosts or self.socket_path}>"

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Return what `url` says.

        Raises:
            ConfigError: it is not of one of the known forms, or a file that it names is not there.
        """
        scheme, separator, rest = url.partition("://")
        kind, tls = scheme.replace("rediss", "redis", 1), scheme.startswith("rediss")
        setup = {
            "redis": Setup.SINGLE,
            "unix": Setup.SINGLE,
            "redis+sentinel": Setup.SENTINEL,
            "redis+cluster": Setup.CLUSTER,
        }.get(kind)
        if not separator or setup is None:
            raise _wrong(
                "it must start with redis://, rediss:// (TLS), unix://, redis+sentinel://, rediss+sentinel://, "
                "redis+cluster:// or rediss+cluster://"
            )
        rest, _, query = rest.partition("?")
        options = _options(query, tls=tls, setup=setup)
        credentials, at, where = rest.rpartition("@")
        username, _, password = credentials.partition(":")
        secrets = (unquote(username) or None, unquote(password) or None) if at else (None, None)
        sentinel = {name: options.pop(name, None) for name in sorted(_SENTINEL_OPTIONS)}
        named, socket_path, database, primary_name = "", "", options.pop("db", ""), ""
        if kind == "unix":
            socket_path = unquote(where)
        else:
            named, _, path = where.partition("/")
            primary_name, database = _path(unquote(path), setup, database)
        return cls(
            setup=setup,
            hosts=() if socket_path else _hosts(named, setup),
            tls=tls,
            username=secrets[0],
            password=secrets[1],
            database=_database(database, setup),
            primary_name=primary_name,
            socket_path=socket_path,
            sentinel_username=sentinel["sentinel_username"],
            sentinel_password=sentinel["sentinel_password"],
            options=tuple(options.items()),
        )


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"PENSTOCK_REDIS_URL is not a Redis address: {what}; docs/redis.md has the forms")


def _options(query: str, *, tls: bool, setup: Setup) -> dict[str, str]:
    allowed = (
        {"protocol"} | (_TLS_OPTIONS if tls else set()) | (_SENTINEL_OPTIONS if setup is Setup.SENTINEL else set())
    )
    if setup is not Setup.CLUSTER:
        allowed |= {"db"}
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TLS_OPTIONS and not tls:
            raise _wrong(f"'{name}' is an option of TLS, which begins with rediss")
        if name not in allowed:
            raise _wrong(f"there is no option '{name}' here; there are {', '.join(sorted(allowed))}")
        if name in _TLS_FILES and not Path(value).is_file():
            raise _wrong(f"the file that '{name}' names is not there")
        if name in _VALUES and value not in _VALUES[name]:
            raise _wrong(f"'{name}' is {' or '.join(_VALUES[name])}")
        options[name] = value
    if tls:
        options.setdefault("ssl_check_hostname", "true")
        if options.get("ssl_cert_reqs") == "none":  # without a certificate there is no name to compare
            options["ssl_check_hostname"] = "false"
    return options


def _path(path: str, setup: Setup, database: str) -> tuple[str, str]:
    """Return the name of the primary and the database's number."""
    if setup is not Setup.SENTINEL:
        return "", path.strip("/") or database
    name, _, number = path.strip("/").partition("/")
    if not name:
        raise _wrong("the name of the primary is missing, as in redis+sentinel://host1:26379,host2:26379/mymaster/0")
    return name, number or database


def _database(number: str, setup: Setup) -> int:
    if number and not (number.isascii() and number.isdigit()):
        raise _wrong("the database is a number, as in redis://host:6379/0")
    if setup is Setup.CLUSTER and int(number or 0):
        raise _wrong("a cluster has the database 0 alone")
    return int(number or 0)


def _hosts(named: str, setup: Setup) -> tuple[tuple[str, int], ...]:
    hosts = []
    for each in named.split(","):
        host, port = each, ""
        if each.startswith("["):  # an IPv6 address
            host, bracket, port = each[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise _wrong("an IPv6 address stands in brackets, its port behind them")
            port = port.removeprefix(":")
        elif ":" in each:
            host, _, port = each.partition(":")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise _wrong("a port is a number from 1 to 65535")
        if not host and (setup is not Setup.SINGLE or "," in named):
            raise _wrong("a host's name is missing")
        hosts.append(
            (unquote(host) or "localhost", int(port or (SENTINEL_PORT if setup is Setup.SENTINEL else REDIS_PORT)))
        )
    if setup is Setup.SINGLE and len(hosts) > 1:
        raise _wrong("several hosts are those of a cluster (redis+cluster://) or of sentinels (redis+sentinel://)")
    if len(hosts) > HOSTS_MAX:
        raise _wrong(f"it names more than {HOSTS_MAX} hosts; a few of them are enough")
    return tuple(hosts)
