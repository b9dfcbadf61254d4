"""The token bucket, pure: whatever the arrival pattern, nobody gets more than what was set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from gateway.admit.bucket import NOTHING, Bucket, Refusal, UsageVector, reserve, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = (0.0, 1.0, 1.0, 1.0)
SLACK = 1e-6
"""Relative: levels are floats."""


class Arrival(NamedTuple):
    """A request that comes `after_s` seconds after the last one, and the part of its reservation that it uses."""

    after_s: float
    tokens: int
    used: float


buckets = st.builds(Bucket, st.integers(1, 1_000).map(float), st.floats(0.01, 100), st.just(TOKENS))
arrivals = st.lists(
    st.builds(Arrival, st.one_of(st.just(0.0), st.floats(0, 30)), st.integers(0, 1_200), st.floats(0, 1)), max_size=60
)


def vector(tokens: float) -> UsageVector:
    return UsageVector(1, tokens, 0, 0)


@given(buckets, arrivals)
def test_no_stretch_of_time_admits_more_than_capacity_plus_refill(bucket: Bucket, steps: Sequence[Arrival]) -> None:
    """Not from the start, and not over any window in between: there is no boundary at which twice the limit passes."""
    levels, clock_s = [bucket.capacity], 0.0
    admitted: list[tuple[float, float]] = []
    for step in steps:
        clock_s += step.after_s
        levels = [bucket.refilled(levels[0], step.after_s)]
        if reserve([bucket], levels, vector(step.tokens)) is None:
            settle([bucket], levels, vector(step.tokens), vector(step.tokens * step.used))
            admitted.append((clock_s, step.tokens * step.used))
    for first, (from_s, _) in enumerate(admitted):
        spent = 0.0
        for at_s, tokens in admitted[first:]:
            spent += tokens
            assert spent <= (bucket.capacity + (at_s - from_s) * bucket.refill_per_s) * (1 + SLACK)


@given(buckets, arrivals)
def test_underestimates_are_repaid_before_anything_new_is_admitted(bucket: Bucket, steps: Sequence[Arrival]) -> None:
    """What is really used may pass the line only by what a single request used beyond its estimate."""
    levels, clock_s, spent, beyond_max = [bucket.capacity], 0.0, 0.0, 0.0
    for step in steps:
        clock_s += step.after_s
        levels = [bucket.refilled(levels[0], step.after_s)]
        if levels[0] < 0:
            assert isinstance(reserve([bucket], levels, vector(0)), Refusal), "a debt admits not even nothing"
        if reserve([bucket], levels, vector(step.tokens)) is None:
            used = step.tokens * (1 + 3 * step.used)
            settle([bucket], levels, vector(step.tokens), vector(used))
            spent += used
            beyond_max = max(beyond_max, used - step.tokens)
        assert spent <= (bucket.capacity + clock_s * bucket.refill_per_s + beyond_max) * (1 + SLACK)


@given(buckets, st.integers(0, 1_000), st.integers(0, 1_000))
def test_the_wait_that_is_told_is_enough_and_not_too_long(bucket: Bucket, spent: int, wanted: int) -> None:
    wanted = min(wanted, int(bucket.capacity))
    levels = [bucket.capacity - spent]
    refusal = reserve([bucket], levels, vector(wanted))
    assert levels == [bucket.capacity - spent] if refusal else [bucket.capacity - spent - wanted]
    if refusal is not None:
        wait_s = refusal.wait_ms / 1000
        assert bucket.refilled(levels[0], wait_s) >= wanted * (1 - SLACK)
        assert bucket.refilled(levels[0], wait_s - 0.001) <= wanted


@given(st.lists(buckets, min_size=1, max_size=5), st.integers(0, 2_000))
def test_all_buckets_are_taken_from_or_none(many: list[Bucket], tokens: int) -> None:
    full = [bucket.capacity for bucket in many]
    levels = list(full)
    refusal = reserve(many, levels, vector(tokens))
    if refusal is None:
        assert levels == [level - tokens for level in full]
        settle(many, levels, vector(tokens), NOTHING)
        assert levels == full
    else:
        assert levels == full
        waits = [bucket.wait_s(level, tokens) for bucket, level in zip(many, full, strict=True)]
        assert waits[refusal.index] == max(waits)
        assert refusal.wait_ms - 1 <= max(waits) * 1000 <= refusal.wait_ms


@given(buckets, st.floats(-1_000, 1_000), st.floats(-1e6, 0))
def test_a_clock_that_steps_back_is_no_time(bucket: Bucket, level: float, elapsed_s: float) -> None:
    assert bucket.refilled(level, elapsed_s) == min(level, bucket.capacity)
