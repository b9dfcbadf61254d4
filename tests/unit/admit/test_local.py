"""Limits without Redis: this replica's share of each bucket, starting from what Redis told last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.admit import local
from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.local import LocalBuckets
from tests.support.clock import Clock
from tests.support.limits import buckets, requests, tokens

if TYPE_CHECKING:
    from gateway.admit.policy import LimitSet

ONE = UsageVector(1, 0, 0, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still."""
    return Clock.put_into(local, monkeypatch)


def granted(shares: LocalBuckets, of: LimitSet, usage: UsageVector = ONE) -> int:
    """Reserve until it is refused; return how often it was granted."""
    count = 0
    while not isinstance(shares.reserve(of, usage), Refusal):
        count += 1
        assert count < 10_000
    return count


@pytest.mark.parametrize(("replicas", "share"), [(1, 12), (2, 6), (3, 4), (0, 12)])
def test_each_replica_grants_its_share(clock: Clock, replicas: int, share: int) -> None:
    shares, of = LocalBuckets(lambda: replicas), buckets(requests(12))
    assert granted(shares, of) == share
    clock.now_s += 60
    assert granted(shares, of) == share, "and gets its share of the refill"


@pytest.mark.usefixtures("clock")
def test_it_starts_from_the_level_that_redis_told_last() -> None:
    shares, of = LocalBuckets(lambda: 2), buckets(requests(100))
    shares.remember(of.keys, [90])
    shares.remember(of.keys, [40])
    assert granted(shares, of) == 20
    shares.forget(of.keys)
    shares.remember(of.keys, [10])
    assert granted(shares, of) == 5, "also the next time"


@pytest.mark.usefixtures("clock")
def test_what_is_forgotten_is_one_callers_own() -> None:
    """The other's keys may be on a node that is still away: forgetting would hand out a fresh share."""
    shares, back, away = LocalBuckets(lambda: 1), buckets(requests(1)), buckets(requests(1))
    for of in (back, away):
        shares.reserve(of, ONE)
    assert shares.forget(back.keys)
    assert isinstance(shares.reserve(away, ONE), Refusal)
    assert not shares.forget(away.keys)


@pytest.mark.usefixtures("clock")
def test_a_debt_that_redis_told_is_a_debt() -> None:
    shares, of = LocalBuckets(lambda: 2), buckets(tokens(60))
    shares.remember(of.keys, [-60])
    refused = shares.reserve(of, UsageVector(1, 1, 0, 0))
    assert refused == Refusal(index=0, wait_ms=62_000, levels=(-30,))


def test_a_share_smaller_than_one_request_still_admits_one_now_and_then(clock: Clock) -> None:
    shares, of = LocalBuckets(lambda: 10), buckets(requests(6), tokens(600))
    usage = UsageVector(1, 500, 0, 0)
    admitted = 0
    for _ in range(3_600):
        clock.now_s += 1
        admitted += not isinstance(shares.reserve(of, usage), Refusal)
    assert admitted == pytest.approx(3_600 * (600 / 60 / 10) / 500, abs=1), "at its share of the refill"


@pytest.mark.usefixtures("clock")
def test_settling_replaces_what_was_reserved() -> None:
    shares, of = LocalBuckets(lambda: 1), buckets(requests(10), tokens(1_000))
    reserved = UsageVector(1, 100, 0, 900)
    assert shares.reserve(of, reserved) == [9, 0]
    shares.settle(of, reserved, UsageVector(1, 50, 50, 100))
    assert shares.reserve(of, NOTHING) == [9, 800]
    shares.settle(of, NOTHING, UsageVector(0, 0, 0, 2_000))
    assert isinstance(shares.reserve(of, ONE), Refusal)
    shares.settle(of, UsageVector(0, 0, 0, 10_000), NOTHING)
    assert shares.reserve(of, NOTHING) == [9, 1_000], "never above what it can hold"


def test_what_settles_after_redis_decides_again_leaves_nothing_behind(clock: Clock) -> None:
    """It would be where the next outage begins."""
    shares, of = LocalBuckets(lambda: 1), buckets(requests(10))
    shares.reserve(of, ONE)
    shares.forget(of.keys)
    shares.settle(of, ONE, ONE)
    shares.remember(of.keys, [0])
    clock.now_s += 1
    assert isinstance(shares.reserve(of, ONE), Refusal)


@pytest.mark.usefixtures("clock")
def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BUCKETS_MAX", 3)
    shares, many = LocalBuckets(lambda: 1), [buckets(requests(10)) for _ in range(5)]
    for of in many:
        shares.reserve(of, ONE)
        shares.remember(of.keys, [5])
    assert len(shares._levels) == len(shares._told) == 3
    shares.reserve(many[2], ONE)
    shares.reserve(many[0], ONE)
    assert set(shares._levels) == {*many[4].keys, *many[2].keys, *many[0].keys}, "the least recently used goes first"
