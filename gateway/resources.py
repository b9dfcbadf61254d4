"""Opens what a replica lives on and closes it in reverse: pools, clients, background tasks, the metrics server.

No module of the gateway holds state of its own; everything that lives is here, and ends with the stack it was put on.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog
from prometheus_client import start_http_server

from gateway.errors import ConfigError
from gateway.notify.notices import Notices
from gateway.observe.metrics import Metrics
from gateway.settle.spool import Spool, open_spool
from gateway.storage.changes import ChangeListener
from gateway.storage.postgres import open_pool
from gateway.storage.redis import RedisClients
from gateway.storage.replicas import Replicas
from gateway.storage.revision import head_revision, is_older, recorded_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from gateway.settings import Settings
    from gateway.storage.postgres import Pool

POSTGRES_WAIT_S = 30.0
RESTART_S = 1.0
LAG_INTERVAL_S = 0.25

_log = structlog.get_logger("penstock.resources")


@dataclass(frozen=True, slots=True)
class Resources:
    """What the stages are built on."""

    boot_id: UUID
    pool: Pool
    redis: RedisClients
    changes: ChangeListener
    replicas: Replicas
    metrics: Metrics
    spool: Spool
    background: Background
    notices: Notices


class Background:
    """Tasks that run as long as the replica does. One that fails is a bug: it is logged and started again."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, run: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        """Run `run()` until it returns or `stop` is called."""
        task = asyncio.get_running_loop().create_task(self._supervise(name, run), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervise(self, name: str, run: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                await run()
            except Exception:
                _log.exception("background_failed", task=name)
                await asyncio.sleep(RESTART_S)
            else:
                return


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Open everything, Postgres being waited for and Redis not: limits have a policy for its absence.

    Raises:
        ConfigError: an address is missing or malformed, or the database is not migrated.
        StorageUnavailable: Postgres did not answer within POSTGRES_WAIT_S.
    """
    dsn, direct_dsn = settings.require_postgres_dsn(), settings.require_postgres_direct_dsn()
    async with AsyncExitStack() as stack:
        boot_id = uuid4()
        metrics = Metrics()
        background = Background()
        spool = open_spool(settings.spool_dir, boot_id, settings.spool_bytes_max, metrics.spool)
        stack.callback(spool.close)
        pool = await open_pool(dsn, pooled=dsn != direct_dsn, wait_s=POSTGRES_WAIT_S)
        stack.push_async_callback(_close_pool, pool)
        await _check_schema(pool)
        redis = RedisClients(settings.require_redis_url(), settings.redis_timeout_ms / 1000)
        stack.push_async_callback(redis.aclose)
        replicas = Replicas(pool, boot_id)
        await replicas.beat()
        metrics.replicas_live.set_function(replicas.live)
        stack.push_async_callback(replicas.leave)
        changes = ChangeListener(direct_dsn, boot_id)
        stack.push_async_callback(background.stop)
        background.start("changes", changes.run)
        background.start("replicas", replicas.run)
        notices = Notices(pool, metrics.webhooks)
        background.start("notices", notices.run)
        background.start("event loop lag", lambda: _watch_lag(metrics))
        _serve_metrics(stack, metrics, settings.metrics_host, settings.metrics_port)
        yield Resources(boot_id, pool, redis, changes, replicas, metrics, spool, background, notices)


async def _check_schema(pool: Pool) -> None:
    revision = await recorded_revision(pool)
    if revision is None or is_older(revision):
        at = f"at revision {revision}" if revision else "empty"
        raise ConfigError(f"the database is {at}, this release needs {head_revision()}: run 'penstock migrate'")


async def _close_pool(pool: Pool) -> None:
    try:
        async with asyncio.timeout(5.0):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def _serve_metrics(stack: AsyncExitStack, metrics: Metrics, host: str, port: int) -> None:
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}; set --metrics-port") from None
    _log.info("metrics", host=host, port=server.server_port)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5.0)

    stack.callback(close)


async def _watch_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before_s = loop.time()
        await asyncio.sleep(LAG_INTERVAL_S)
        metrics.event_loop_lag.observe(max(loop.time() - before_s - LAG_INTERVAL_S, 0.0))
        metrics.event_loop_tasks.set(len(asyncio.all_tasks(loop)))
