"""PostgreSQL and Redis for the test suite: one of each per session, a fresh database for every test.

Found in this order: the addresses in PENSTOCK_TEST_POSTGRES_DSN and PENSTOCK_TEST_REDIS_URL (their Redis database is
emptied before every test), containers when a Docker daemon answers, the embedded servers. Faults are made on servers of
a test's own, from `dedicated_postgres` and `dedicated_redis`, never on the shared ones.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis

from gateway.dev.postgres import SETTINGS, start_postgres
from gateway.dev.redis import start_redis
from gateway.dev.servers import ServerAddresses, running_servers
from gateway.storage.migrate import upgrade
from tests.support.containers import docker_servers
from tests.support.redis_setups import redis_nodes

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from gateway.dev.children import RunningServer

T = TypeVar("T")
COMMAND_S_MAX = 60.0
UNSYNCED = SETTINGS | {"fsync": "off", "full_page_writes": "off"}
"""What a killed PostgreSQL has written outlives it in the system's memory, and no test cuts the machine's power. With
`fsync`, the copies of databases that tests are given would let every commit beside them wait for the disk by turns."""


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, whether or not this thread has a running event loop."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(asyncio.wait_for(work, COMMAND_S_MAX)))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """Yield a temporary folder that other accounts can pass through: as root, PostgreSQL runs under another one."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def redis_is_given() -> bool:
    """Whether the suite has to do with one Redis, whose database it empties."""
    return bool(os.environ.get("PENSTOCK_TEST_REDIS_URL"))


@contextmanager
def session_servers() -> Iterator[ServerAddresses]:
    """Yield the servers that all tests of a session share."""
    postgres_dsn = os.environ.get("PENSTOCK_TEST_POSTGRES_DSN")
    redis_url = os.environ.get("PENSTOCK_TEST_REDIS_URL")
    with docker_servers(postgres=not postgres_dsn, redis=not redis_url) as containers, ExitStack() as stack:
        folder = stack.enter_context(reachable_directory())
        found = {"postgres_dsn": postgres_dsn or containers[0], "redis_url": redis_url or containers[1]}
        if not found["postgres_dsn"]:
            own = start_unsynced(folder)
            stack.enter_context(own.child)
            found["postgres_dsn"] = own.address
        yield stack.enter_context(running_servers(folder, **found))


class Databases:
    """Makes databases on one PostgreSQL server: empty, or copied from a template that was migrated once."""

    def __init__(self, server_dsn: str) -> None:
        self._server_dsn = server_dsn
        self._prefix = f"penstock_test_{secrets.token_hex(6)}"
        self._made = 0
        self._template: str | None = None

    def dsn(self, database: str) -> str:
        """Return the address of a database on this server."""
        return urlunsplit(urlsplit(self._server_dsn)._replace(path=f"/{database}"))

    @contextmanager
    def empty(self) -> Iterator[str]:
        """Yield the DSN of a database without any table; it is dropped afterwards, open connections or not."""
        name = self._create(template="template0")
        try:
            yield self.dsn(name)
        finally:
            self._drop(name)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """Yield the DSN of a fresh database at the newest revision; it is dropped afterwards."""
        if self._template is None:
            self._template = self._create(template="template0")
            run_blocking(upgrade(self.dsn(self._template)))
        name = self._create(template=self._template)
        try:
            yield self.dsn(name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self._drop(self._template)
            self._template = None

    def _create(self, *, template: str) -> str:
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def _drop(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self._server_dsn, timeout=COMMAND_S_MAX)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        run_blocking(execute())


def empty_redis(url: str) -> None:
    """Delete every key of the database that `url` names, on all nodes of a cluster, and the scripts remembered."""
    with ExitStack() as stack:
        for node in redis_nodes(url):
            client = stack.enter_context(redis.Redis.from_url(node, socket_timeout=COMMAND_S_MAX))
            client.flushdb()
            client.script_flush()


def redis_time(url: str) -> float:
    """Return Redis's own time, in seconds of Unix time: the one that leases and buckets go by."""
    with redis.Redis.from_url(url, socket_timeout=COMMAND_S_MAX) as client:
        seconds, microseconds = cast("tuple[int, int]", client.time())
        return seconds + microseconds / 1e6


def start_unsynced(folder: Path) -> RunningServer:
    """Start PostgreSQL with its files in `folder`, without the disk's guarantees; the caller stops it."""
    return start_postgres(folder, folder / "logs", UNSYNCED)


@contextmanager
def dedicated_postgres() -> Iterator[RunningServer]:
    """Yield an embedded PostgreSQL of one's own, with a migrated database: to be stopped, frozen or killed.

    `start_unsynced(server.data.parent.parent)` starts it again with the same data and, the port being free, the same
    address; the caller stops what it starts.
    """
    with reachable_directory() as folder:
        server = start_unsynced(folder)
        with server.child:
            run_blocking(upgrade(server.address))
            yield server


@contextmanager
def dedicated_redis() -> Iterator[RunningServer]:
    """Yield an embedded Redis of one's own, to be stopped, frozen or killed; `start_redis(server.data, …)` restarts."""
    with reachable_directory() as folder:
        server = start_redis(folder, folder / "logs")
        with server.child:
            yield server
