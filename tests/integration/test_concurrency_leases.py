"""Concurrent requests on a real Redis, over several replicas: never more than may be, and places given back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import redis as sync_redis

from gateway.admit import leases
from gateway.admit.policy import LEASE_MS, limit_set
from gateway.admit.reservation import NO_COST
from gateway.domain.config import ModelLimits
from gateway.domain.principal import Level
from gateway.domain.usage import NO_USAGE
from gateway.errors import LimitExceeded
from tests.support.limiter import Limiter, limiter
from tests.support.limits import levels_of, model, places, principal, requests
from tests.support.waiting import wait_until
from tests.unit.admit.scripted import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.admit.reservation import Reservation
    from gateway.domain.config import ModelConfig
    from gateway.domain.principal import Principal

REPLICAS = 3


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[list[Limiter]]:
    """Several replicas on the shared Redis."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(limiter(redis_url)) for _ in range(REPLICAS)]


@pytest.fixture
def redis(redis_url: str) -> Iterator[sync_redis.Redis]:
    """A connection to look with."""
    with sync_redis.Redis.from_url(redis_url) as client:
        yield client


def lease_key(caller: Principal) -> str:
    """Return the key of a caller's only lease."""
    subject = caller.concurrency_limits[0].subject_id
    return f"pst:{{{caller.organization_id.hex}}}:l:{subject.hex}:"


async def admitted(replica: Limiter, caller: Principal, asked: ModelConfig, times: int) -> list[Reservation]:
    """Ask so often at the same time; return what was granted. Everything else must be a refusal."""
    outcomes = await asyncio.gather(
        *(replica.admitter.admit(caller, call(asked)) for _ in range(times)), return_exceptions=True
    )
    granted = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert all(isinstance(outcome, LimitExceeded) for outcome in outcomes if isinstance(outcome, BaseException))
    return granted


async def all_admitted(replicas: list[Limiter], caller: Principal, asked: ModelConfig, times: int) -> int:
    """Ask all replicas at once; return how many were granted."""
    granted = await asyncio.gather(*(admitted(each, caller, asked, times) for each in replicas))
    return sum(map(len, granted))


def passed(redis: sync_redis.Redis, key: str, elapsed_ms: int) -> None:
    """Let time pass for the places of a lease."""
    for member in cast("list[bytes]", redis.zrange(key, 0, -1)):
        redis.zincrby(key, -elapsed_ms, member)


async def test_no_more_run_at_once_than_may(replicas: list[Limiter]) -> None:
    caller, asked = principal(places(7, level=Level.TEAM)), model()
    assert await all_admitted(replicas, caller, asked, 20) == 7
    with pytest.raises(LimitExceeded, match="'team concurrent requests' of 7 is reached") as refused:
        await replicas[0].admitter.admit(caller, call(asked))
    assert refused.value.retry_after_s == 1.0
    assert sum(each.decisions("refused_concurrency") for each in replicas) == REPLICAS * 20 - 7 + 1


async def test_a_place_is_free_again_when_its_request_has_ended(replicas: list[Limiter]) -> None:
    caller, asked = principal(places(1)), model()
    for number in range(6):
        (reservation,) = await admitted(replicas[number % REPLICAS], caller, asked, 5)
        assert replicas[number % REPLICAS].metrics.registry.get_sample_value("penstock_limiter_leases_held") == 1
        if number % 2:
            reservation.settle(NO_USAGE, NO_COST)
        else:
            reservation.withdraw()
        await replicas[number % REPLICAS].quiet()
    assert [len(each.store.leases) for each in replicas] == [0] * REPLICAS


async def test_what_a_bucket_refuses_takes_no_place(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    caller, asked = principal(places(5), requests(1)), model()
    assert len(await admitted(replicas[0], caller, asked, 5)) == 1
    assert redis.zcard(lease_key(caller)) == 1
    full = principal(places(1), requests(100))
    assert len(await admitted(replicas[0], full, asked, 5)) == 1
    (level,) = levels_of(cast("list[bytes | None]", redis.mget(limit_set(full, asked).keys)))
    assert level == pytest.approx(99, abs=1), "and the other way round"


async def test_places_of_a_replica_that_died_lapse_and_those_that_are_renewed_do_not(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    caller, asked = principal(places(4)), model()
    assert await all_admitted(replicas[:2], caller, asked, 2) == 4
    passed(redis, lease_key(caller), LEASE_MS - 5_000)
    await replicas[0].store.leases.renew()  # the other one does not
    passed(redis, lease_key(caller), LEASE_MS - 5_000)
    assert await all_admitted(replicas, caller, asked, 5) == 2


async def test_after_a_wipe_all_that_run_are_counted_again_but_for_what_ended(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_PLACES_MAX", 3)
    caller, asked = principal(places(10), places(20)), model()
    running = await admitted(replicas[0], caller, asked, 10)
    redis.flushdb()
    renewing = asyncio.ensure_future(replicas[0].store.leases.renew())
    await asyncio.sleep(0)  # it has begun: what ends now is among what it renews
    for reservation in running[:4]:
        reservation.settle(NO_USAGE, NO_COST)
    await renewing
    await replicas[0].quiet()
    assert redis.zcard(lease_key(caller)) == 6
    assert await all_admitted(replicas, caller, asked, 10) == 4


@pytest.mark.parametrize(("renew_s", "away"), [(0.02, False), (1e6, True)])
async def test_renewing_runs_by_itself_and_at_once_when_redis_is_back(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch, renew_s: float, *, away: bool
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", renew_s)
    monkeypatch.setattr(leases, "_TICK_S", 0.01)
    caller, asked = principal(places(10)), model()
    await admitted(replicas[0], caller, asked, 2)
    running = asyncio.ensure_future(replicas[0].admitter.run())
    try:
        redis.flushdb()
        if away:
            (node,) = replicas[0].store.redis.nodes
            node.away("the test says so")
        await wait_until(lambda: redis.zcard(lease_key(caller)) == 2, "both places are there again")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("changed", [2, 9])
async def test_a_limit_that_is_changed_counts_those_that_run(replicas: list[Limiter], changed: int) -> None:
    before = principal(places(5))
    assert len(await admitted(replicas[0], before, model(), 5)) == 5
    after = replace(before, concurrency_limits=(replace(before.concurrency_limits[0], requests=changed),))
    assert len(await admitted(replicas[1], after, model(), 10)) == max(changed - 5, 0)


async def test_a_models_own_limit_counts_all_tenants_and_gives_the_tenants_share_back(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    asked = model(limits=ModelLimits(concurrent_requests=3, requests_per_minute=600))
    callers = [principal(places(5)) for _ in range(REPLICAS)]
    granted = [await admitted(each, caller, asked, 4) for each, caller in zip(replicas, callers, strict=True)]
    assert [len(each) for each in granted] == [3, 0, 0]
    with pytest.raises(LimitExceeded, match="deployment concurrent requests for m"):
        await replicas[1].admitter.admit(callers[1], call(asked))
    for replica in replicas:
        await replica.quiet()
    assert [redis.zcard(lease_key(caller)) for caller in callers] == [3, 0, 0]
    granted[0][0].settle(NO_USAGE, NO_COST)
    await replicas[0].quiet()
    assert len(await admitted(replicas[2], principal(), asked, 4)) == 1, "also for who has no limits"
