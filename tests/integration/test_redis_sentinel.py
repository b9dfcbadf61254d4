"""A primary that sentinels watch over, killed and frozen for real: whoever they choose next is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from gateway.errors import LimiterUnavailable
from gateway.observe.metrics import Metrics
from tests.support.frozen import frozen
from tests.support.redis_setups import FAILOVER_S_MAX, client_of, guarded_redis, kill
from tests.support.scripts import COUNT, running_scripts, sample
from tests.support.waiting import wait_until_asked

if TYPE_CHECKING:
    from gateway.admit.redis_cluster import RedisCluster
    from gateway.admit.redis_single import RedisSingle

PATIENCE_S = 5.0
SHORT_S = 0.1
FALLBACK = "penstock_limiter_fallback"
KEY = "pst:{organization}:x"


async def add(scripts: RedisSingle | RedisCluster, amount: int = 1) -> int | None:
    """Count up; None while Redis is away."""
    try:
        return int(await scripts.call(COUNT, (1, KEY, amount)))
    except LimiterUnavailable:
        return None


async def wait_counted(scripts: RedisSingle | RedisCluster, expected: int) -> None:
    """Wait until Redis is back and has counted this much."""

    async def counted() -> bool:
        return await add(scripts, 0) == expected

    await wait_until_asked(counted, f"Redis is back, and {expected} are counted", FAILOVER_S_MAX)


async def test_a_primary_that_was_killed_is_followed_by_its_replica() -> None:
    metrics = Metrics()
    with guarded_redis() as guarded, structlog.testing.capture_logs() as logs:
        async with running_scripts(guarded.address, PATIENCE_S, metrics) as scripts:
            await scripts.check()
            assert sample(metrics, "penstock_redis_noeviction") == 1
            assert await add(scripts, 5) == 5
            with client_of(guarded.primary) as client:
                assert client.wait(1, 5_000) == 1, "the replica has it"
            guarded.sentinels[0].stop()  # two are a majority
            kill(guarded.primary)
            assert await add(scripts) is None
            scripts.send_soon(COUNT, (1, KEY, 2), 60.0)
            await wait_counted(scripts, 7)
            assert sample(metrics, FALLBACK) == 0
    assert [line["event"] for line in logs if line["log_level"] in {"warning", "error"}] == ["redis_away", "redis_back"]


async def test_a_primary_that_was_replaced_while_it_was_frozen_is_left() -> None:
    """It answers again, to those who still hold connections to it, and is no longer asked."""
    with guarded_redis() as guarded:
        async with running_scripts(guarded.address, SHORT_S) as scripts:
            assert await add(scripts, 5) == 5
            with client_of(guarded.primary) as client:
                assert client.wait(1, 5_000) == 1, "the replica has it"
            with frozen(guarded.primary):
                assert await add(scripts) is None
                await wait_counted(scripts, 5)
            with client_of(guarded.replica) as client:
                assert client.info("replication")["role"] == "master"
                assert await add(scripts) == 6
                assert client.get(KEY) == b"6"


async def test_sentinels_that_know_no_such_primary_leave_the_limits_to_the_replicas() -> None:
    with guarded_redis(sentinels=1) as guarded, structlog.testing.capture_logs() as logs:
        async with running_scripts(guarded.address.replace("mymaster", "another"), PATIENCE_S) as scripts:
            assert await add(scripts) is None
            assert not scripts.available
    assert [line["event"] for line in logs] == ["redis_away"]
    assert "another" in str(logs), "what is wrong is told"
