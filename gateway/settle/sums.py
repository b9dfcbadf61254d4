"""Sums of what was used in a period, exact at any time: the one place that knows what is in which table.

Whole days come from the daily rollup and whole hours from the hourly one, or from the one by session; all hold all rows
of transactions below the watermark. What is left of the period at its two ends is read from those rows themselves, and
everything from the watermark on is the tail, whatever its hour. In one statement, so in one snapshot, each row is in
exactly one of these.
"""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from gateway.units import event_ids_between

if TYPE_CHECKING:
    from uuid import UUID

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)

TAIL = """
    SELECT * FROM penstock_usage_parts(
        (SELECT watermark FROM rollup_state), '18446744073709551615'::xid8, {since}, {until})
"""
"""SQL of the rows that are not in the rollups yet, opened from `{since}` up to `{until}`, as `used` has them."""


class Cut(Enum):
    """How finely a period has to be cut: what is told apart decides which rollups can answer."""

    DAY = "day"
    HOUR = "hour"
    SESSION = "session"


_KEY = "organization_id, team_id, user_id, key_id, model, served_model, engine"
_SUMS = (
    "requests, estimated, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,"
    " cost_pico_usd::numeric AS cost_pico_usd"
)
_NO_SESSION = "NULL::text AS session, NULL::timestamptz AS opened_first, NULL::timestamptz AS opened_last"
_SESSION = "session, CASE WHEN session IS NOT NULL THEN opened_at END, CASE WHEN session IS NOT NULL THEN opened_at END"
_ROLLED = "(ingest_xid < (SELECT watermark FROM rollup_state)) IS TRUE"

_DAYS = f"""
    SELECT {_KEY}, day::timestamp AT TIME ZONE 'UTC' AS moment, {_NO_SESSION}, {_SUMS} FROM usage_day
     WHERE day >= ({{days}} AT TIME ZONE 'UTC')::date AND day < ({{days_end}} AT TIME ZONE 'UTC')::date AND {{own}}
    UNION ALL
"""  # noqa: S608 - constants of this module
_HOURS = f"""
    SELECT {_KEY}, hour AS moment, {{of_session}}, {_SUMS} FROM {{rollup}}
     WHERE (hour >= {{hours}} AND hour < {{days}} OR hour >= {{days_end}} AND hour < {{rest}}) AND {{own}}
    UNION ALL
"""  # noqa: S608 - constants of this module

# Events of the ends are found by their ids, which begin with the time: no partition is read whole, whoever's they are.
# (IS TRUE keeps Postgres from taking the index of ingest_xid, by which nearly all rows are below the watermark.)
_END = f"""
    SELECT {_KEY}, opened_at, {_SESSION}, 1, (coverage = 'estimated')::integer, prompt_tokens, cached_tokens,
           completion_tokens, reasoning_tokens, cost_pico_usd FROM usage_event
     WHERE opened_at >= {{begin}} AND opened_at < {{end}} AND event_id >= {{begin_id}} AND event_id < {{end_id}}
       AND {_ROLLED} AND {{own}}
    UNION ALL
    SELECT organization_id, team_id, user_id, key_id, model, served_model, engine, opened_at, {_SESSION}, 0, 0,
           prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd
      FROM usage_adjustment AS a LEFT JOIN LATERAL (
           SELECT e.engine, e.session FROM usage_event AS e
            WHERE e.event_id = a.event_id AND e.opened_at = a.opened_at LIMIT 1) AS adjusted ON true
     WHERE opened_at >= {{begin}} AND opened_at < {{end}} AND event_id >= {{begin_id}} AND event_id < {{end_id}}
       AND {_ROLLED} AND {{own}}
    UNION ALL
"""  # noqa: S608 - constants of this module
_NEWEST = f"""
    SELECT {_KEY}, opened_at, {_SESSION}, {_SUMS} FROM ({TAIL}) AS tail WHERE {{own}}
"""  # noqa: S608 - constants of this module

PARAMETERS = 10
"""How many parameters `used` has."""


def used(cut: Cut, own: str = "true") -> str:
    """Return SQL of rows whose sums are what was used in a period: $1 to $10 are what `Cover.parameters` has.

    Its columns are those of a rollup, `moment` (when the row's day or hour began, or the request was opened), `session`
    and, with it, `opened_first` and `opened_last`. Sessions are told apart by `Cut.SESSION` alone, and moments are no
    finer than a day by `Cut.DAY`; the cover must be of the same cut.

    Args:
        own: an SQL condition on organization_id, and whatever else every rollup has, that all rows have to meet.
    """
    since, hours, days, days_end, rest, until = (f"${number}::timestamptz" for number in range(1, 7))
    of_session = "session, opened_first, opened_last" if cut is Cut.SESSION else _NO_SESSION
    rollup = "usage_session" if cut is Cut.SESSION else "usage_hour"
    whole = _HOURS.format(
        hours=hours, days=days, days_end=days_end, rest=rest, own=own, of_session=of_session, rollup=rollup
    )
    if cut is Cut.DAY:
        whole += _DAYS.format(days=days, days_end=days_end, own=own)
    first = _END.format(begin=since, end=hours, begin_id="$7::uuid", end_id="$8::uuid", own=own)
    last = _END.format(begin=rest, end=until, begin_id="$9::uuid", end_id="$10::uuid", own=own)
    return whole + first + last + _NEWEST.format(since=since, until=until, own=own)


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
    def of(cls, since: dt.datetime, until: dt.datetime, cut: Cut = Cut.DAY) -> Cover:
        """Cut the period that holds `since` and does not hold `until`, which is not before it.

        There are whole days in it only by `Cut.DAY`.
        """
        since, until = since.astimezone(dt.UTC), until.astimezone(dt.UTC)
        hours, rest = _ceiling(since, HOUR), _floor(until, HOUR)
        if hours > rest:
            return cls(since, until, until, until, until, until)
        days, days_end = _ceiling(since, DAY), _floor(until, DAY)
        if days > days_end or cut is not Cut.DAY:
            days = days_end = rest
        return cls(since, hours, days, days_end, rest, until)

    @property
    def parameters(self) -> tuple[dt.datetime | UUID, ...]:
        """The parameters of `used`: the six times, and between which ids the events of the two ends are."""
        first, last = (self.since, self.hours), (self.rest, self.until)
        return (*self, *(ident for begin, end in (first, last) for ident in event_ids_between(begin, end)))

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
