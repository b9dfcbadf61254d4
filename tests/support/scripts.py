"""What runs scripts on a Redis, watching over it, as in a replica."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import redis

from gateway.admit.redis_cluster import scripts_on
from gateway.admit.script import Script
from gateway.observe.metrics import Metrics
from gateway.storage.redis import RedisClients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.admit.redis_cluster import RedisCluster
    from gateway.admit.redis_single import RedisSingle


def script(source: str) -> Script:
    """Return a script of a test's own."""
    return Script(source, redis.Redis().register_script(source).sha)


COUNT = script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
ECHO = script("return ARGV[1]")


@asynccontextmanager
async def running_scripts(
    url: str, timeout_s: float, metrics: Metrics | None = None
) -> AsyncIterator[RedisSingle | RedisCluster]:
    """Yield what runs scripts at `url`, each within `timeout_s`."""
    clients = RedisClients(url, timeout_s)
    scripts = scripts_on(clients, timeout_s=timeout_s, metrics=metrics or Metrics())
    watching = asyncio.ensure_future(scripts.run())
    try:
        yield scripts
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await scripts.close()
        await clients.aclose()


def sample(metrics: Metrics, name: str) -> float | None:
    """Return the value of a series without labels."""
    return metrics.registry.get_sample_value(name)
