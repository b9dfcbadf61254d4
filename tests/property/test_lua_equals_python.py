"""The Lua scripts on a real Redis equal the Python reference: same decisions, same waits, same levels to the bit.

How time passes without anybody waiting is told in `tests.support.limiter_scripts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admit.bucket import Bucket, UsageVector
from tests.support.limiter_scripts import LimiterScripts, Reference, Seen, Written
from tests.support.servers import COMMAND_S_MAX, empty_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.dev.servers import ServerAddresses

TTL_SLACK_MS = 5_000
"""A key's time to live is asked for a moment after it was set."""


class Reserve(NamedTuple):
    event: str
    usage: UsageVector


class Settle(NamedTuple):
    event: str | None  # None: whichever is open
    used: UsageVector


class Withdraw(NamedTuple):
    event: str


class Elapse(NamedTuple):
    milliseconds: float


Step = Reserve | Settle | Withdraw | Elapse

weight = st.one_of(st.sampled_from([0.0, 1.0, 0.1, 2.0]), st.floats(0, 10, allow_subnormal=False))
# Mostly small against the buckets, so that most reservations are granted and live to be settled.
tokens = st.sampled_from([20, 20, 20, 20, 20, 20, 500, 500, 10**12]).flatmap(lambda most: st.integers(0, most))
usages = st.builds(UsageVector, st.integers(0, 3), tokens, tokens, tokens)
events = st.sampled_from("abcd")
buckets = st.builds(
    Bucket,
    st.one_of(st.integers(1, 2_000), st.integers(200, 20_000), st.integers(2_000, 10**12)).map(float),
    st.integers(1, 10**6).map(lambda per_minute: per_minute / 60),
    st.tuples(weight, weight, weight, weight),
)
steps = st.lists(
    st.one_of(
        st.builds(Reserve, events, usages),
        st.builds(Reserve, events, usages),
        st.builds(Settle, events, usages),
        st.builds(Settle, st.none(), usages),
        st.builds(Settle, st.none(), usages),
        st.builds(Withdraw, st.sampled_from("def")),
        st.builds(Elapse, st.one_of(st.floats(-5_000, 5_000), st.integers(0, 10**7).map(float))),
    ),
    min_size=5,
    max_size=30,
)


@pytest.fixture(scope="module")
def client(servers: ServerAddresses) -> Iterator[redis.Redis]:
    """A client of the shared Redis, emptied."""
    empty_redis(servers.redis_url)
    with redis.Redis.from_url(servers.redis_url, socket_timeout=COMMAND_S_MAX) as client:
        yield client


@given(many=st.lists(buckets, min_size=1, max_size=4), sequence=steps)
@settings(max_examples=200)
def test_any_sequence(client: redis.Redis, many: list[Bucket], sequence: Sequence[Step]) -> None:
    scripts, reference = LimiterScripts(client, many), Reference(many)
    for step in sequence:
        match step:
            case Elapse(milliseconds):
                scripts.elapse(milliseconds)
                reference.elapse(milliseconds)
            case Reserve(event, usage):
                check_reserve(reference, event, usage, scripts.reserve(event, usage))
            case Settle(named, used):
                event = named or next((each for each, taken in reference.taken.items() if taken), "never")
                check_settle(reference, event, used, scripts.settle(event, used), withdraws=False)
            case Withdraw(event):
                used = UsageVector(0, 0, 0, 0)
                check_settle(reference, event, used, scripts.withdraw(event), withdraws=True)


def check_reserve(reference: Reference, event: str, usage: UsageVector, seen: Seen) -> None:
    """Compare one reservation with what the reference says, and make it there."""
    granted, *told = seen.answer
    if event in reference.taken:
        assert_unchanged(reference, seen)
        if reference.taken[event] is None:
            assert seen.answer == [0, 0, 0], "what was withdrawn before it arrived is refused"
        else:
            assert granted == 1, "what was granted stays granted"
            assert_between(reference, seen, told)
        return
    if granted:
        now_ms = now_of(seen)
        levels = reference.reserve(event, usage, now_ms)
        assert isinstance(levels, list), f"Python refuses: {levels}"
        assert told == [math.floor(level) for level in levels]
        assert_stored(reference, seen, levels)
        assert 0 < seen.reservation_ttl_ms <= 600_000
        return
    assert_unchanged(reference, seen)
    assert seen.reservation is None, "nothing is written when refused"
    index, wait_ms, *levels_now = told
    assert_between(reference, seen, levels_now)
    sooner, later = reference.refusal(usage, seen.before_ms), reference.refusal(usage, seen.after_ms)
    assert sooner is not None, "Python grants"
    if sooner == later:
        assert (index - 1, wait_ms) == (sooner.index, sooner.wait_ms)
    else:  # a boundary lies within the few microseconds between the two
        assert (later.wait_ms if later else 0) <= wait_ms <= sooner.wait_ms


def check_settle(reference: Reference, event: str, used: UsageVector, seen: Seen, *, withdraws: bool) -> None:
    """Compare one settlement with what the reference says, and make it there."""
    if reference.taken.get(event) is not None:
        assert seen.answer == 1
        assert seen.reservation is None
        assert_stored(reference, seen, reference.settle(event, used, now_of(seen)))
        return
    assert seen.answer == 0
    assert_unchanged(reference, seen)
    if withdraws:
        reference.taken[event] = None
    remembered = event in reference.taken
    assert seen.reservation == (b"-" if remembered else None)
    assert remembered == (0 < seen.reservation_ttl_ms <= 60_000)


def now_of(seen: Seen) -> float:
    """Return what the script took for now: the same in all that it wrote, and true."""
    (now_ms,) = {written.at_ms for written in seen.buckets if written is not None}
    assert seen.before_ms <= now_ms <= seen.after_ms
    return now_ms


def assert_stored(reference: Reference, seen: Seen, levels: Sequence[float]) -> None:
    assert [written and written.level for written in seen.buckets] == list(levels)
    for index, written in enumerate(seen.buckets):
        assert isinstance(written, Written)
        ttl_ms = reference.ttl_ms(index, levels[index])
        assert ttl_ms - TTL_SLACK_MS <= written.ttl_ms <= ttl_ms


def assert_unchanged(reference: Reference, seen: Seen) -> None:
    assert [written and (written.level, written.at_ms) for written in seen.buckets] == reference.stored


def assert_between(reference: Reference, seen: Seen, told: Sequence[int]) -> None:
    """Assert that levels which were told, and not stored, are those of a moment within the call."""
    for low, level, high in zip(reference.levels(seen.before_ms), told, reference.levels(seen.after_ms), strict=True):
        assert math.floor(low) <= level <= math.floor(high)
