"""Times as people write them: `30d`, `12h`, `2026-08-01`. Bounded, and always in UTC when no zone is given."""

from __future__ import annotations

import datetime as dt
import re

from gateway.errors import InvalidRequest

LIFETIME_S_MIN = 60
LIFETIME_S_MAX = 10 * 366 * 86_400

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")


def parse_duration(text: str, param: str) -> dt.timedelta:
    """Return how long `30d`, `12h`, `90m`, `2w` or `600s` is.

    Raises InvalidRequest, naming `param`, for anything else and for more than ten years.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{param} must look like 30d, 12h or 90m", param=param)
    duration_s = int(match[1]) * _UNITS_S[match[2]]
    if duration_s > LIFETIME_S_MAX:
        raise InvalidRequest(f"{param} is longer than ten years", param=param)
    return dt.timedelta(seconds=duration_s)


def parse_lifetime(text: str, param: str = "expires_in") -> dt.timedelta:
    """Return a duration of a minute to ten years. Raises InvalidRequest."""
    duration = parse_duration(text, param)
    if duration.total_seconds() < LIFETIME_S_MIN:
        raise InvalidRequest(f"{param} is shorter than a minute", param=param)
    return duration


def is_relative(text: str) -> bool:
    """Return whether a moment is told by how long ago it is (`7d`), so that it means another one a second later."""
    return _DURATION.fullmatch(text.strip()) is not None


def parse_moment(text: str, now: dt.datetime, param: str) -> dt.datetime:
    """Return a moment in UTC: ISO 8601 (a date is its midnight, no zone is UTC), or `7d` for that long before `now`.

    Raises InvalidRequest, naming `param`.
    """
    try:
        if is_relative(text):
            return now - parse_duration(text, param)
        moment = dt.datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{param} must look like 2026-08-01, 2026-08-01T12:00Z, 24h or 7d", param=param) from None
