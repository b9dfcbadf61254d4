"""PostgreSQL and Redis as containers, when a Docker daemon answers that can run them.

The client library alone proves nothing, so the daemon is asked. A daemon that cannot provide the images (no network,
for example) is as good as none: the embedded servers follow, and a warning in the log says why.
"""

from __future__ import annotations

import gc
import logging
import secrets
import warnings
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import docker  # type: ignore[import-untyped]  # the library ships no types
import requests
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.exceptions import ContainerStartException
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

POSTGRES_IMAGE = "postgres:17-alpine"
REDIS_IMAGE = "redis:7-alpine"
PROBE_S_MAX = 2
REDIS_PORT = 6379
UNABLE = (docker.errors.DockerException, ContainerStartException, requests.RequestException, TimeoutError)

_log = logging.getLogger(__name__)


def docker_answers() -> bool:
    """Return whether a Docker daemon answers within `PROBE_S_MAX` seconds."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        answers = _ping()
        gc.collect()  # the library leaks the socket of a failed attempt: let it go here, where nobody minds
    return answers


def _ping() -> bool:
    try:
        client = docker.DockerClient.from_env(version="1.44", timeout=PROBE_S_MAX)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.api.get(f"{client.api.base_url}/_ping").ok)
    except UNABLE:
        return False
    finally:
        client.close()


@contextmanager
def docker_servers(*, postgres: bool, redis: bool) -> Iterator[tuple[str | None, str | None]]:
    """Yield the address of each server that is wanted and could be started (PostgreSQL, Redis), else None for it."""
    postgres_dsn = redis_url = None
    with ExitStack() as stack:
        if (postgres or redis) and docker_answers():
            postgres_dsn = _address(stack, _postgres) if postgres else None
            redis_url = _address(stack, _redis) if redis else None
        yield postgres_dsn, redis_url


def _address(stack: ExitStack, run: Callable[[], AbstractContextManager[str]]) -> str | None:
    try:
        return stack.enter_context(run())
    except UNABLE as error:
        _log.warning("Docker answers but cannot run %s: %s", run.__name__.strip("_"), error)
        return None


@contextmanager
def _postgres() -> Iterator[str]:
    password = secrets.token_urlsafe(24)
    with PostgresContainer(POSTGRES_IMAGE, username="penstock", password=password, driver=None) as container:
        yield container.get_connection_url()


@contextmanager
def _redis() -> Iterator[str]:
    password = secrets.token_urlsafe(24)
    command = f"redis-server --requirepass {password} --maxmemory-policy noeviction --save ''"
    container = DockerContainer(REDIS_IMAGE, command=command).with_exposed_ports(REDIS_PORT)
    with container.waiting_for(LogMessageWaitStrategy("Ready to accept connections")):
        yield f"redis://:{password}@{container.get_container_host_ip()}:{container.get_exposed_port(REDIS_PORT)}/0"
