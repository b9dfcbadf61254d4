"""Scripts on a real Redis Cluster: each finds its keys, also while they move; a lost node is felt by its keys alone."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, cast

import pytest
import structlog

from gateway.dev.redis import start_redis
from gateway.errors import LimiterUnavailable
from gateway.observe.metrics import Metrics
from tests.support.redis_setups import FAILOVER_S_MAX, RedisCluster, client_of, kill, looking, running_cluster
from tests.support.scripts import COUNT, running_scripts, sample
from tests.support.waiting import wait_until_asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.admit.redis_cluster import RedisCluster as Cluster
    from gateway.admit.redis_single import RedisSingle

    Scripts = RedisSingle | Cluster

PATIENCE_S = 5.0
SHORT_S = 0.05
FALLBACK = "penstock_limiter_fallback"
_numbers = count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """A cluster whose slots these tests move about."""
    with running_cluster() as running:
        yield running


def key_on(cluster: RedisCluster, primary: int) -> str:
    """Return a key that nobody used, of a slot that this primary had at the start."""
    return next(key for key in (f"pst:{{{n}}}:x" for n in _numbers) if cluster.index_of(key) == primary)


async def add(scripts: Scripts, key: str, amount: int = 1) -> int:
    """Count up at a key."""
    return int(await scripts.call(COUNT, (1, key, amount)))


async def answered(scripts: Scripts, key: str) -> bool:
    """Whether a key can be counted at."""
    try:
        await add(scripts, key, 0)
    except LimiterUnavailable:
        return False
    return True


async def wait_counted(scripts: Scripts, key: str, expected: int) -> None:
    """Wait until a key can be counted at, and what waited to be counted there has been."""

    async def counted() -> bool:
        try:
            return await add(scripts, key, 0) == expected
        except LimiterUnavailable:
            return False

    await wait_until_asked(counted, f"{expected} are counted", FAILOVER_S_MAX)


def map_readings(cluster: RedisCluster) -> int:
    """Return how often the nodes were asked for the map of slots."""
    readings = 0
    for server in cluster.primaries:
        with client_of(server) as client:
            stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
            readings += stats.get("cmdstat_cluster", {}).get("calls", 0)
    return readings


async def test_every_key_is_counted_on_its_own_node(cluster: RedisCluster) -> None:
    async with running_scripts(cluster.address, PATIENCE_S) as scripts:
        keys = [f"pst:{{every{number}}}:x" for number in range(300)]
        for expected in (1, 2):
            assert await asyncio.gather(*(scripts.call(COUNT, (1, key, 1)) for key in keys)) == [expected] * 300
        assert len(scripts.nodes) == 3
    with looking(cluster.address) as client:
        assert client.mget_nonatomic(keys) == [b"2"] * 300


async def test_keys_that_moved_are_found_and_the_map_is_not_read_for_each_call(cluster: RedisCluster) -> None:
    key = key_on(cluster, 0)
    async with running_scripts(cluster.address, PATIENCE_S) as scripts:
        assert await add(scripts, key) == 1
        cluster.move(key, 1)
        before = map_readings(cluster)
        assert sorted(await asyncio.gather(*(scripts.call(COUNT, (1, key, 1)) for _ in range(300)))) == list(
            range(2, 302)
        )
        assert all(node.available for node in scripts.nodes)
        assert map_readings(cluster) - before < 10


async def test_keys_that_are_moving_are_asked_for_where_they_arrive(cluster: RedisCluster) -> None:
    key = key_on(cluster, 1)
    async with running_scripts(cluster.address, PATIENCE_S) as scripts:
        assert await add(scripts, key) == 1
        cluster.move(key, 2, finish=False)
        assert [await add(scripts, key) for _ in range(3)] == [2, 3, 4]
        assert sorted(await asyncio.gather(*(scripts.call(COUNT, (1, key, 1)) for _ in range(20)))) == list(
            range(5, 25)
        )
        cluster.move(key, 2)
        assert await add(scripts, key) == 25


async def test_keys_torn_apart_cost_their_own_calls_alone_and_are_settled_once_together(cluster: RedisCluster) -> None:
    """Redis can run no script over keys of which some have moved and some have not: it says to try again."""
    key, other = key_on(cluster, 2), key_on(cluster, 2)
    both = key.replace(":x", ":y")
    async with running_scripts(cluster.address, PATIENCE_S) as scripts:
        await asyncio.gather(add(scripts, key), add(scripts, both))
        cluster.move(key, 0, leave=both, finish=False)
        with pytest.raises(LimiterUnavailable, match="on their way"):
            await scripts.call(COUNT, (2, key, both, 1))
        scripts.send_soon(COUNT, (2, key, both, 1), 60.0)
        assert await add(scripts, other) == 1
        assert all(node.available for node in scripts.nodes)
        cluster.move(key, 0)
        await wait_counted(scripts, key, 2)


async def test_a_lost_node_is_felt_by_its_own_keys_alone_and_gets_what_waited(cluster: RedisCluster) -> None:
    metrics = Metrics()
    with running_cluster() as own, ExitStack() as again:
        mine, others = key_on(own, 0), [key_on(own, 1), key_on(own, 2)]
        async with running_scripts(own.address, PATIENCE_S, metrics) as scripts:
            await scripts.check()
            kill(own.primaries[0])
            assert not await answered(scripts, mine)
            assert sample(metrics, FALLBACK) == 1
            assert scripts.available, "most of it is there"
            with pytest.raises(LimiterUnavailable, match="away"):
                scripts.call(COUNT, (1, mine, 1))  # at once: it waits for nothing
            scripts.send_soon(COUNT, (1, mine, 7), 60.0)
            for expected in range(1, 50):
                assert [await add(scripts, key) for key in others] == [expected] * 2
            restarted = start_redis(own.primaries[0].data, own.primaries[0].data / "logs", own.settings)
            again.enter_context(restarted.child)
            await wait_counted(scripts, mine, 7)
            assert sample(metrics, FALLBACK) == 0


async def test_a_replica_that_takes_over_is_found(cluster: RedisCluster) -> None:
    metrics = Metrics()
    with running_cluster(replicas=1) as own, structlog.testing.capture_logs() as logs:
        mine, other = key_on(own, 0), key_on(own, 1)
        async with running_scripts(own.address, PATIENCE_S, metrics) as scripts:
            await scripts.check()
            lost = {node.name for node in scripts.nodes}
            assert await add(scripts, mine, 5) == 5
            with client_of(own.primaries[0]) as client:
                assert client.wait(1, 5_000) == 1, "the replica has it"
            kill(own.primaries[0])
            assert not await answered(scripts, mine)
            scripts.send_soon(COUNT, (1, mine, 2), 60.0)
            assert await add(scripts, other) == 1
            await wait_counted(scripts, mine, 7)  # what waited went to who has the keys now
            assert sample(metrics, FALLBACK) == 0
            assert len({node.name for node in scripts.nodes} - lost) == 1
    assert [line["event"] for line in logs if line["event"] in {"redis_away", "redis_map_unread"}] == ["redis_away"]


async def test_a_cluster_that_is_not_there_yet_is_found_when_it_is(cluster: RedisCluster) -> None:
    nodes = cluster.address.rpartition("@")
    nowhere = f"{nodes[0]}@127.0.0.1:1"
    async with running_scripts(nowhere, SHORT_S) as scripts:
        await scripts.check()
        assert not await answered(scripts, key_on(cluster, 0))
        assert not scripts.available
    async with running_scripts(f"{nowhere},{nodes[2].rpartition(',')[2]}", PATIENCE_S) as scripts:
        await scripts.check()
        assert len(scripts.nodes) == 3, "one of those that are named is enough"
        assert await add(scripts, key_on(cluster, 0)) == 1


async def test_an_address_of_the_wrong_kind_is_told(cluster: RedisCluster, redis_url: str) -> None:
    single = cluster.primaries[0].address
    with structlog.testing.capture_logs() as logs:
        async with running_scripts(single, PATIENCE_S) as scripts:
            await scripts.check()
            with pytest.raises(LimiterUnavailable):
                await scripts.call(COUNT, (1, key_on(cluster, 1), 1))
            assert not scripts.available
        async with running_scripts(redis_url.replace("redis://", "redis+cluster://"), SHORT_S) as scripts:
            await scripts.check()
    told = [str(line) for line in logs]
    assert any("redis_address_misleads" in line and "begin with redis+cluster://" in line for line in told)
    assert any("redis_away" in line and "redis+cluster://" in line for line in told)
    assert any("redis_map_unread" in line for line in told)
