"""Event ids: UUIDv7 that sort by time and hold the time at which a request was opened."""

from __future__ import annotations

import datetime as dt
import time
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.units import new_event_id, opened_at

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
YEAR_2106_MS = 2**32 * 1000


def test_ids_are_version_7_unique_and_in_order_of_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = [new_event_id() for _ in range(2_000)]
    after_ms = time.time_ns() // 1_000_000
    assert len(set(ids)) == len(ids)
    assert all((each.version, each.variant) == (7, RFC_4122) for each in ids)
    times_ms = [each.int >> 80 for each in ids]
    assert times_ms == sorted(times_ms)
    assert before_ms <= times_ms[0]
    assert times_ms[-1] <= after_ms


@given(st.integers(0, YEAR_2106_MS), st.integers(0, 2**80 - 1))
def test_the_time_inside_is_exact_to_the_millisecond(ms: int, rest: int) -> None:
    """A rewritten record must meet its own primary key, so this time never depends on how it is computed."""
    assert opened_at(UUID(int=ms << 80 | rest)) == EPOCH + dt.timedelta(milliseconds=ms)


@given(st.integers(0, YEAR_2106_MS), st.integers(0, YEAR_2106_MS), st.integers(0, 2**80 - 1), st.integers(0, 2**80 - 1))
def test_ids_sort_as_their_times_do(one_ms: int, other_ms: int, one_rest: int, other_rest: int) -> None:
    one, other = UUID(int=one_ms << 80 | one_rest), UUID(int=other_ms << 80 | other_rest)
    if one_ms != other_ms:
        assert (one < other) == (opened_at(one) < opened_at(other)) == (str(one) < str(other))
