"""Finds or starts the two servers that Penstock needs: a given address first, then the embedded ones.

`penstock dev` takes given addresses from the environment; the test suite also asks a Docker daemon before it gets
here. Whatever was started here is stopped when the `with` block is left.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.dev.postgres import start_postgres
from gateway.dev.redis import start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.children import Child


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where the servers are (passwords included), the processes that were started for them, and PostgreSQL's files."""

    postgres_dsn: str
    redis_url: str
    children: tuple[Child, ...] = field(default=(), compare=False)
    postgres_data: Path | None = None


@contextmanager
def running_servers(
    data_dir: Path, *, postgres_dsn: str | None = None, redis_url: str | None = None
) -> Iterator[ServerAddresses]:
    """Yield the addresses of PostgreSQL and Redis.

    For each of them: the given address, else an embedded server with its files in `data_dir`, stopped when the block is
    left. Raises DevServerError, saying what to install, when neither works.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    log_dir = data_dir / "logs"
    children: list[Child] = []
    postgres_data = None
    with ExitStack() as stack:
        if not redis_url:
            server = start_redis(data_dir, log_dir)
            redis_url = server.address
            children.append(stack.enter_context(server.child))
        if not postgres_dsn:
            server = start_postgres(data_dir, log_dir)
            postgres_dsn = server.address
            postgres_data = server.data
            children.append(stack.enter_context(server.child))
        yield ServerAddresses(postgres_dsn, redis_url, tuple(children), postgres_data)
