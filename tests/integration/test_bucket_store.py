"""Buckets on a real Redis, through the store: what is granted and given back, and what happens when Redis is late."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import redis as sync_redis

from gateway.admit import redis_node
from gateway.admit.bucket import Refusal, UsageVector
from gateway.admit.bucket_store import BucketStore
from gateway.admit.claim import Claim, Granted
from gateway.errors import LimiterUnavailable
from gateway.observe.metrics import Metrics
from gateway.units import new_event_id
from tests.support.frozen import frozen
from tests.support.limits import buckets, levels_of, requests, tokens
from tests.support.redis_setups import looking
from tests.support.scripts import running_scripts
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from gateway.admit.policy import LimitSet
    from gateway.admit.redis_node import RedisNode
    from gateway.dev.children import RunningServer

PATIENCE_S = 10.0
SHORT_S = 0.05
ONE = UsageVector(1, 0, 0, 0)


@asynccontextmanager
async def opened(url: str, *, timeout_s: float = PATIENCE_S, ttl_s: float = 600.0) -> AsyncIterator[BucketStore]:
    """Yield a store that watches over Redis."""
    metrics = Metrics()
    async with running_scripts(url, timeout_s, metrics) as scripts:
        yield BucketStore(scripts, reservation_ttl_s=ttl_s, metrics=metrics)


@pytest.fixture
async def store(any_redis_url: str) -> AsyncIterator[BucketStore]:
    """A store on the shared Redis, or the shared cluster."""
    async with opened(any_redis_url) as store:
        yield store


@pytest.fixture
def redis(any_redis_url: str) -> Iterator[sync_redis.Redis]:
    """A connection to look with."""
    with looking(any_redis_url) as client:
        yield client


def sample(store: BucketStore, name: str) -> float | None:
    """Return one of the store's series."""
    return store.redis._metrics.registry.get_sample_value(name)


def only(store: BucketStore) -> RedisNode:
    """Return the one node there is."""
    (node,) = store.redis.nodes
    return node


event = new_event_id


def claim(event_id: UUID, of: LimitSet, usage: UsageVector = ONE) -> Claim:
    """Return what a request claims."""
    return Claim(event_id, of, usage)


def levels(redis: sync_redis.Redis, of: LimitSet) -> list[float | None]:
    """Return the levels as they are stored, None for a bucket that is not."""
    return levels_of(cast("list[bytes | None]", redis.mget(of.keys)))


async def granted(store: BucketStore, of: LimitSet, usage: UsageVector, event_id: UUID) -> list[int]:
    """Reserve, which must be granted; returns the levels left."""
    answer = await store.reserve(claim(event_id, of, usage))
    assert isinstance(answer, Granted)
    return answer.levels


async def settled(store: BucketStore) -> None:
    """Wait until nothing is on its way to Redis."""
    nodes = store.redis.nodes
    await wait_until(lambda: not any(node._unsent for node in nodes), "none waits to be sent again")
    await asyncio.gather(*(node._batch.close() for node in nodes))
    assert not any(node._unsent for node in nodes)


async def test_what_is_reserved_is_taken_from_every_bucket(store: BucketStore) -> None:
    of = buckets(requests(10), tokens(1_000))
    assert await granted(store, of, UsageVector(1, 100, 0, 200), event()) == [9, 700]
    assert await granted(store, of, UsageVector(1, 100, 0, 200), event()) == [8, 400]


async def test_reserving_again_changes_nothing(store: BucketStore) -> None:
    of, id_ = buckets(requests(10)), event()
    assert [await granted(store, of, ONE, id_) for _ in range(3)] == [[9], [9], [9]]


async def test_a_refusal_names_the_bucket_that_takes_longest_and_writes_nothing(
    store: BucketStore, redis: sync_redis.Redis
) -> None:
    of = buckets(tokens(60, burst=100), tokens(6, burst=100), requests(60))
    answer = await store.reserve(claim(event(), of, UsageVector(1, 101, 0, 0)))
    assert answer == Refusal(index=1, wait_ms=10_000, levels=(100, 100, 60))
    assert redis.dbsize() == 0


async def test_settling_gives_back_what_was_not_used_once(store: BucketStore, redis: sync_redis.Redis) -> None:
    of, id_ = buckets(requests(1, burst=10), tokens(1, burst=1_000)), event()
    await granted(store, of, UsageVector(1, 100, 0, 500), id_)
    for _ in range(3):
        store.settle_soon(claim(id_, of), UsageVector(1, 100, 0, 50), 0)
    await settled(store)
    assert await granted(store, of, UsageVector(0, 0, 0, 0), event()) == [9, 850]
    assert redis.exists(of.reservation_key(id_.hex)) == 0


async def test_more_than_was_reserved_is_a_debt(store: BucketStore) -> None:
    of, id_ = buckets(tokens(60, burst=100)), event()
    await granted(store, of, UsageVector(1, 100, 0, 0), id_)
    store.settle_soon(claim(id_, of), UsageVector(1, 100, 0, 60), 0)
    await settled(store)
    answer = await store.reserve(claim(event(), of, UsageVector(1, 0, 0, 0)))
    assert isinstance(answer, Refusal)
    assert 50_000 < answer.wait_ms <= 60_000


async def test_a_withdrawal_gives_all_of_it_back(store: BucketStore) -> None:
    of, id_ = buckets(requests(1, burst=10)), event()
    await granted(store, of, ONE, id_)
    store.withdraw_soon(claim(id_, of))
    await settled(store)
    assert await granted(store, of, UsageVector(0, 0, 0, 0), event()) == [10]


async def test_a_withdrawal_that_arrives_first_refuses_what_comes_after(
    store: BucketStore, redis: sync_redis.Redis
) -> None:
    of, id_ = buckets(requests(10)), event()
    store.withdraw_soon(claim(id_, of))
    await settled(store)
    with pytest.raises(LimiterUnavailable, match="withdrawn"):
        await store.reserve(claim(id_, of, ONE))
    assert store.available, "which is no sign that Redis is away"
    assert levels(redis, of) == [None]


@pytest.mark.parametrize("turns", range(6))
async def test_giving_up_on_an_answer_gives_back_what_it_took(
    store: BucketStore, redis: sync_redis.Redis, turns: int
) -> None:
    """At whatever point the client hangs up: before the question is sent, on its way, or with the answer."""
    of, id_ = buckets(requests(1, burst=10)), event()
    reserving = asyncio.ensure_future(store.reserve(claim(id_, of, ONE)))
    for _ in range(turns):
        await asyncio.sleep(0)
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    await settled(store)
    assert levels(redis, of) in ([None], [10.0])


async def test_what_was_reserved_lapses_by_itself(any_redis_url: str, redis: sync_redis.Redis) -> None:
    async with opened(any_redis_url, ttl_s=0.001) as store:
        of, id_ = buckets(requests(1, burst=10)), event()
        await granted(store, of, ONE, id_)
        await wait_until(lambda: not redis.exists(of.reservation_key(id_.hex)), "the reservation has lapsed")
        store.settle_soon(claim(id_, of), UsageVector(0, 0, 0, 0), 0)
        await settled(store)
        assert await granted(store, of, UsageVector(0, 0, 0, 0), event()) == [9], "it stands as it was"


async def test_a_frozen_redis_is_away_until_it_answers_and_keeps_nothing_that_was_not_granted(
    own_redis: RunningServer,
) -> None:
    of, before, late = buckets(requests(1, burst=10)), event(), event()
    with sync_redis.Redis.from_url(own_redis.address) as redis:
        async with opened(own_redis.address, timeout_s=SHORT_S) as store:
            await granted(store, of, ONE, before)
            with frozen(own_redis):
                with pytest.raises(LimiterUnavailable):
                    await store.reserve(claim(late, of, ONE))
                assert not store.available
                assert sample(store, "penstock_limiter_fallback") == 1
                with pytest.raises(LimiterUnavailable, match="away"):
                    store.reserve(claim(event(), of, ONE)).send(None)  # at once: it waits for nothing
                store.settle_soon(claim(before, of), ONE, 0)
                assert len(only(store)._unsent) == 2
            await wait_until(lambda: store.available and not only(store)._unsent, "all is settled")
            assert sample(store, "penstock_limiter_fallback") == 0
            await settled(store)
            assert levels(redis, of) == pytest.approx([9.0], abs=0.5), "one a minute comes back"
            assert redis.exists(of.reservation_key(before.hex)) == 0
            assert redis.get(of.reservation_key(late.hex)) in (None, b"-")


async def test_a_kept_connection_that_was_closed_is_no_reason_to_take_redis_for_away(
    redis_url: str,
) -> None:
    async with opened(redis_url) as store:
        assert await only(store)._answers()
        with looking(redis_url) as redis:
            redis.client_kill_filter(_type="normal", skipme=True)
        assert await only(store)._answers()


async def test_a_settle_that_fails_is_sent_again(own_redis: RunningServer) -> None:
    of, id_ = buckets(requests(1, burst=10)), event()
    async with opened(own_redis.address, timeout_s=SHORT_S) as store:
        await granted(store, of, ONE, id_)
        with frozen(own_redis):
            store.settle_soon(claim(id_, of), UsageVector(0, 0, 0, 0), 0)
            await wait_until(lambda: not store.available, "it is found to be away")
        await wait_until(lambda: store.available and not only(store)._unsent, "all is settled")
        await settled(store)
        assert await granted(store, of, UsageVector(0, 0, 0, 0), event()) == [10]


async def test_settles_that_wait_are_bounded_and_grow_old(
    own_redis: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "UNSENT_MAX", 3)
    of = buckets(requests(10))
    async with opened(own_redis.address, ttl_s=0.0) as store:
        only(store).available = False
        for _ in range(5):
            store.settle_soon(claim(event(), of), ONE, 0)
        assert len(only(store)._unsent) == 3
        assert sample(store, "penstock_limiter_settles_dropped_total") == 2
        own_redis.child.stop()
        await only(store)._send_waiting()
        assert not only(store)._unsent, "their reservations have lapsed: nobody is asked"


async def test_what_waits_is_sent_when_the_store_closes(any_redis_url: str, redis: sync_redis.Redis) -> None:
    of, id_ = buckets(requests(1, burst=10)), event()
    async with opened(any_redis_url) as store:
        await granted(store, of, ONE, id_)
        for node in store.redis.nodes:
            node.available = False
        store.settle_soon(claim(id_, of), UsageVector(0, 0, 0, 0), 0)
        for node in store.redis.nodes:
            node.available = True
        await store.close()
    assert levels(redis, of) == [10.0]


async def test_a_redis_that_evicts_is_told(own_redis: RunningServer) -> None:
    with sync_redis.Redis.from_url(own_redis.address) as redis:
        async with opened(own_redis.address) as store:
            await store.check()
            assert sample(store, "penstock_redis_noeviction") == 1
            redis.config_set("maxmemory-policy", "allkeys-lru")
            await store.check()
            assert sample(store, "penstock_redis_noeviction") == 0
            own_redis.child.stop()
            await store.check()
