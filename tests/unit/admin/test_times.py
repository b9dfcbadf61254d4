"""Durations and moments as people write them."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.admin.times import parse_duration, parse_lifetime, parse_moment
from gateway.admin.usage import Period
from gateway.errors import InvalidRequest

NOW = dt.datetime(2026, 8, 1, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86_400), ("12h", 43_200), ("90m", 5400), ("2w", 1_209_600), ("600s", 600), (" 1h ", 3600)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text, "since") == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5h", "1d12h", "1 d", "30D", "٣d", "9999999999s", "3661d", "999999999w"]
)
def test_what_is_no_duration_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--expires-in") as refused:
        parse_duration(text, "--expires-in")
    assert refused.value.param == "--expires-in"


def test_a_key_lives_for_a_minute_at_least() -> None:
    assert parse_lifetime("60s") == dt.timedelta(minutes=1)
    for short in ("59s", "0d"):
        with pytest.raises(InvalidRequest, match="shorter than a minute"):
            parse_lifetime(short)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", NOW - dt.timedelta(days=1)),
        ("7d", NOW - dt.timedelta(days=7)),
        ("2026-07-01", dt.datetime(2026, 7, 1, tzinfo=dt.UTC)),
        ("2026-07-01T10:30", dt.datetime(2026, 7, 1, 10, 30, tzinfo=dt.UTC)),
        ("2026-07-01T10:30:00Z", dt.datetime(2026, 7, 1, 10, 30, tzinfo=dt.UTC)),
        ("2026-07-01T10:30:00+02:00", dt.datetime(2026, 7, 1, 8, 30, tzinfo=dt.UTC)),
    ],
)
def test_moments_are_in_utc(text: str, moment: dt.datetime) -> None:
    parsed = parse_moment(text, NOW, "since")
    assert parsed == moment
    assert parsed.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00", "2026-07-01T25:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="since must look like"):
        parse_moment(text, NOW, "since")


def test_a_period_is_the_day_before_its_end_unless_said() -> None:
    day = dt.timedelta(days=1)
    assert Period.parse(None, None, NOW) == Period(NOW - day, NOW)
    end = dt.datetime(2026, 7, 2, tzinfo=dt.UTC)
    assert Period.parse(None, "2026-07-02", NOW) == Period(end - day, end)
    assert Period.parse("7d", "1d", NOW) == Period(NOW - 7 * day, NOW - day)


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="before until"):
        Period.parse("1d", "2d", NOW)
