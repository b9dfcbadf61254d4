"""Finds or starts the two servers that Penstock needs: a given address first, then containers, then embedded ones.

`penstock dev` uses it without containers, the test suite with them. Whatever was started here is stopped when the
`with` block is left.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.dev.postgres import start_postgres
from gateway.dev.redis import start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.dev.children import Child


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where the servers are (passwords included), and the processes that were started for them, if any."""

    postgres_dsn: str
    redis_url: str
    children: tuple[Child, ...] = field(default=(), compare=False)


class Containers(Protocol):
    """Starts servers as containers; each block yields an address and removes the container when left."""

    def postgres(self) -> AbstractContextManager[str]:
        """Run PostgreSQL; yield its DSN."""

    def redis(self) -> AbstractContextManager[str]:
        """Run Redis; yield its URL."""


@contextmanager
def running_servers(
    data_dir: Path,
    *,
    postgres_dsn: str | None = None,
    redis_url: str | None = None,
    containers: Containers | None = None,
) -> Iterator[ServerAddresses]:
    """Yield the addresses of PostgreSQL and Redis.

    For each of them: the given address, else a container when `containers` is given, else an embedded server with its
    files in `data_dir`. Raises DevServerError, saying what to install, when none of these works.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    log_dir = data_dir / "logs"
    children: list[Child] = []
    with ExitStack() as stack:
        if not redis_url and containers:
            redis_url = stack.enter_context(containers.redis())
        elif not redis_url:
            server = start_redis(data_dir, log_dir)
            redis_url = server.address
            children.append(stack.enter_context(server.child))
        if not postgres_dsn and containers:
            postgres_dsn = stack.enter_context(containers.postgres())
        elif not postgres_dsn:
            server = start_postgres(data_dir, log_dir)
            postgres_dsn = server.address
            children.append(stack.enter_context(server.child))
        yield ServerAddresses(postgres_dsn, redis_url, tuple(children))
