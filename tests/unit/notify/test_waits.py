"""How long is waited after failures, and what a receiver's wish to wait may be."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

import pytest

from gateway.notify.courier import GIVEN_UP_AFTER, PAUSE_S_MAX, WAIT_S_MAX, wait_s
from gateway.notify.post import RETRY_AFTER_S_MAX, retry_after_s


def test_waits_grow_to_a_bound() -> None:
    waits = [wait_s(failures, 0.5) for failures in range(1, 1000)]
    assert waits[:4] == [5.0, 15.0, 45.0, 135.0]
    assert waits == sorted(waits)
    assert max(waits) == WAIT_S_MAX
    assert wait_s(1000, 0.5, PAUSE_S_MAX) == PAUSE_S_MAX
    assert wait_s(1, 0.0) < wait_s(1, 0.5) < wait_s(1, 0.999) <= 6.0


def test_a_day_holds_a_dozen_attempts() -> None:
    passed_s, attempts = 0.0, 0
    while passed_s < GIVEN_UP_AFTER.total_seconds():
        attempts += 1
        passed_s += wait_s(attempts, 0.5)
    assert 10 <= attempts <= 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("", 0), ("120", 120), ("99999999", RETRY_AFTER_S_MAX), ("soon", 0), ("-5", 0), ("1e9", 0)],
        *[("Thu, 01 Jan 2026 00:00:00 +99999999999999", 0), (f"Thu, 01 Jan 2026 {'1' * 20}:00:00 GMT", 0)],
    ],
)
def test_a_wish_to_wait_is_read_and_bounded(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds


def test_a_wish_to_wait_may_be_a_date() -> None:
    soon = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), usegmt=True)
    assert 3500 < retry_after_s(soon) <= 3600
    assert retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT") == RETRY_AFTER_S_MAX
    assert retry_after_s("Fri, 01 Jan 1999 00:00:00 GMT") == 0
