"""Limits that are raised or lowered while requests run: what was used stays used, and nothing begins anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import redis as sync_redis

from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.claim import Claim, Granted
from gateway.admit.policy import LimitSet, limit_set
from gateway.units import new_event_id
from tests.support.limiter import Limiter, limiter
from tests.support.limits import levels_of, model, principal, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.domain.principal import Principal

M = model()


@pytest.fixture
async def replica(redis_url: str) -> AsyncIterator[Limiter]:
    """One replica on the shared Redis."""
    async with limiter(redis_url) as replica:
        yield replica


@pytest.fixture
def redis(redis_url: str) -> Iterator[sync_redis.Redis]:
    """A connection to look with."""
    with sync_redis.Redis.from_url(redis_url) as client:
        yield client


def changed(caller: Principal, burst: int) -> LimitSet:
    """Return the caller's limits with another capacity, at one token a minute."""
    return limit_set(replace(caller, limits=(replace(caller.limits[0], burst=burst),)), M)


def usage(amount: int) -> UsageVector:
    """Return so many tokens."""
    return UsageVector(1, amount, 0, 0)


def level(redis: sync_redis.Redis, of: LimitSet) -> float:
    """Return the level as it is stored."""
    (stored,) = levels_of(cast("list[bytes | None]", redis.mget(of.keys)))
    assert stored is not None
    return stored


async def left(replica: Limiter, of: LimitSet) -> int:
    """Return what a request is told to be left, without taking anything."""
    answer = await replica.store.reserve(Claim(new_event_id(), of, NOTHING))
    assert isinstance(answer, Granted)
    return answer.levels[0]


@pytest.mark.parametrize(("burst", "then"), [(5_000, 300), (1_000, 300), (100, 100)])
async def test_a_changed_capacity_goes_on_from_the_level_there_is(replica: Limiter, burst: int, then: int) -> None:
    caller = principal(tokens(1, burst=1_000))
    before = limit_set(caller, M)
    assert isinstance(await replica.store.reserve(Claim(new_event_id(), before, usage(700))), Granted)
    assert await left(replica, changed(caller, burst)) == then, "spent is spent; no more than fits"


async def test_a_debt_stays_a_debt(replica: Limiter) -> None:
    caller = principal(tokens(1, burst=1_000))
    claim = Claim(new_event_id(), limit_set(caller, M), usage(700))
    assert isinstance(await replica.store.reserve(claim), Granted)
    replica.store.settle_soon(claim, usage(1_500), 0)
    await replica.quiet()
    answer = await replica.store.reserve(Claim(new_event_id(), changed(caller, 90_000), usage(0)))
    assert isinstance(answer, Refusal)


@pytest.mark.parametrize(("used", "then"), [(10, 1_090), (200, 900)])
async def test_what_was_reserved_under_a_smaller_limit_takes_nothing_of_the_larger_one(
    replica: Limiter, redis: sync_redis.Redis, used: int, then: int
) -> None:
    caller = principal(tokens(1, burst=100))
    early = Claim(new_event_id(), limit_set(caller, M), usage(100))
    assert isinstance(await replica.store.reserve(early), Granted)
    larger = changed(caller, 5_000)
    gain = Claim(new_event_id(), larger, usage(0))
    assert isinstance(await replica.store.reserve(gain), Granted)
    replica.store.settle_soon(gain, UsageVector(1, -1_000, 0, 0), 0)  # as if it had refilled for long
    replica.store.settle_soon(early, usage(used), 0)
    await replica.quiet()
    assert level(redis, larger) == pytest.approx(then, abs=1)
    assert await left(replica, larger) == pytest.approx(then, abs=1)
