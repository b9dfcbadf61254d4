"""Fixtures of the whole suite: the shared servers, and a clean database and Redis for every test that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.redis_setups import running_cluster
from tests.support.servers import (
    Databases,
    dedicated_postgres,
    dedicated_redis,
    empty_redis,
    reachable_directory,
    redis_is_given,
    session_servers,
)
from tests.support.tenants import Tenant, make_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from gateway.dev.servers import ServerAddresses
    from tests.support.redis_setups import RedisCluster


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Say how many processes share the suite: one where a Redis is given, which every test wants for itself."""
    return 0 if redis_is_given() else None


# Where a test runs what logs in its own process: Rich's tracebacks with all variables take a minute to draw.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def servers() -> Iterator[ServerAddresses]:
    """PostgreSQL and Redis, shared by the session; a missing server fails the tests that need it."""
    with session_servers() as running:
        yield running


@pytest.fixture(scope="session")
def databases(servers: ServerAddresses) -> Iterator[Databases]:
    """Makes databases on the shared server, for tests and modules with a scope of their own."""
    made = Databases(servers.postgres_dsn)
    yield made
    made.close()


@pytest.fixture
def postgres_dsn(databases: Databases) -> Iterator[str]:
    """The DSN of a fresh database at the newest revision."""
    with databases.migrated() as dsn:
        yield dsn


@pytest.fixture
def empty_postgres_dsn(databases: Databases) -> Iterator[str]:
    """The DSN of a fresh database without any table."""
    with databases.empty() as dsn:
        yield dsn


@pytest.fixture
def redis_url(servers: ServerAddresses) -> str:
    """The URL of the shared Redis, emptied."""
    empty_redis(servers.redis_url)
    return servers.redis_url


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster of three, shared by the session."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster_url(shared_cluster: RedisCluster) -> str:
    """The URL of the shared cluster, emptied."""
    empty_redis(shared_cluster.address)
    return shared_cluster.address


@pytest.fixture(params=["standalone", "cluster"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a shared Redis of each kind, emptied."""
    return str(request.getfixturevalue("redis_url" if request.param == "standalone" else "cluster_url"))


@pytest.fixture
def own_postgres() -> Iterator[RunningServer]:
    """An embedded PostgreSQL with a migrated database for this test alone: to be stopped, frozen or killed."""
    with dedicated_postgres() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RunningServer]:
    """An embedded Redis for this test alone: to be stopped, frozen or killed."""
    with dedicated_redis() as server:
        yield server


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """A temporary folder that other accounts can pass through, unlike `tmp_path`: for PostgreSQL's data as root."""
    with reachable_directory() as folder:
        yield folder


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    """A simulated engine that serves `sim` as fast as it goes."""
    with EngineProcess("sim") as running:
        yield running


@pytest.fixture
def gateway(engine: EngineProcess, postgres_dsn: str, redis_url: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """One replica with `engine` behind it, on a fresh database and an empty Redis."""
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, postgres_dsn, redis_url) as running:
        yield running


@pytest.fixture
def tenant(postgres_dsn: str) -> Tenant:
    """A tenant without limits in the database of this test, which `gateway` uses."""
    return make_tenant(postgres_dsn)
