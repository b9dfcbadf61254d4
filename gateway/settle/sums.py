"""Sums of what was used in a period, exact at any time: the one place that knows what is in which table.

Whole days come from the daily rollup and whole hours from the hourly one; both hold all rows of transactions below the
watermark. What is left of the period at its two ends is read from those rows themselves, and everything from the
watermark on is the tail, whatever its hour. In one statement, so in one snapshot, each row is in exactly one of these.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)

TAIL = """
    SELECT * FROM penstock_usage_parts(
        (SELECT watermark FROM rollup_state), '18446744073709551615'::xid8, {since}, {until})
"""
"""SQL of the rows that are not in the rollups yet, opened from `{since}` up to `{until}`, as `USED` has them."""

_KEY = "organization_id, team_id, user_id, key_id, model, served_model, engine"
_SUMS = (
    "requests, estimated, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,"
    " cost_pico_usd::numeric AS cost_pico_usd"
)
_ENDS = "(opened_at >= {since} AND opened_at < {hours} OR opened_at >= {rest} AND opened_at < {until})"
_ROLLED = "ingest_xid < (SELECT watermark FROM rollup_state)"
_OWN = "({organization}::uuid IS NULL OR organization_id = {organization})"

USED = f"""
    SELECT {_KEY}, {_SUMS} FROM usage_day
     WHERE day >= ({{days}} AT TIME ZONE 'UTC')::date AND day < ({{days_end}} AT TIME ZONE 'UTC')::date AND {_OWN}
    UNION ALL
    SELECT {_KEY}, {_SUMS} FROM usage_hour
     WHERE (hour >= {{hours}} AND hour < {{days}} OR hour >= {{days_end}} AND hour < {{rest}}) AND {_OWN}
    UNION ALL
    SELECT {_KEY}, 1, (coverage = 'estimated')::integer, prompt_tokens, cached_tokens, completion_tokens,
           reasoning_tokens, cost_pico_usd FROM usage_event WHERE {_ENDS} AND {_ROLLED} AND {_OWN}
    UNION ALL
    SELECT organization_id, team_id, user_id, key_id, model, served_model, NULL, 0, 0, prompt_tokens, cached_tokens,
           completion_tokens, reasoning_tokens, cost_pico_usd FROM usage_adjustment
     WHERE {_ENDS} AND {_ROLLED} AND {_OWN}
    UNION ALL
    SELECT {_KEY}, {_SUMS} FROM ({TAIL}) AS tail WHERE {_OWN}
"""  # noqa: S608 - constants of this module
"""SQL of rows whose sums are what was used in a period. To be formatted with names for the six times of a `Cover`, in
this order, and for `organization`: an id, or NULL for all."""


class Cover(NamedTuple):
    """A period cut where whole hours and whole days begin and end; parts may be empty. All times are aware.

    `[since, hours)` and `[rest, until)` are less than an hour each; `[hours, days)` and `[days_end, rest)` are whole
    hours, `[days, days_end)` whole days, in UTC.
    """

    since: dt.datetime
    hours: dt.datetime
    days: dt.datetime
    days_end: dt.datetime
    rest: dt.datetime
    until: dt.datetime

    @classmethod
    def of(cls, since: dt.datetime, until: dt.datetime) -> Cover:
        """Cut the period that holds `since` and does not hold `until`, which is not before it."""
        since, until = since.astimezone(dt.UTC), until.astimezone(dt.UTC)
        hours, rest = _ceiling(since, HOUR), _floor(until, HOUR)
        if hours > rest:
            return cls(since, until, until, until, until, until)
        days, days_end = _ceiling(since, DAY), _floor(until, DAY)
        if days > days_end:
            days = days_end = rest
        return cls(since, hours, days, days_end, rest, until)

    @property
    def needs_events_since(self) -> dt.datetime | None:
        """The earliest moment that only events themselves tell of, None when rollups tell all."""
        return self.since if self.since < self.hours else self.rest if self.rest < self.until else None

    @property
    def needs_hours_since(self) -> dt.datetime | None:
        """The earliest hour that is not part of a whole day, None when there is none."""
        return self.hours if self.hours < self.days else self.days_end if self.days_end < self.rest else None


def _floor(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // step * step


def _ceiling(moment: dt.datetime, step: dt.timedelta) -> dt.datetime:
    floor = _floor(moment, step)
    return floor if floor == moment else floor + step
