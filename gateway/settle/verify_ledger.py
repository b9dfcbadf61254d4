"""The ledger against itself: each opening has one end and each end an opening, and the rollups are its sums."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gateway.settle.drift import Check, Drift, Findings
from gateway.settle.reaper import DEADLINE_GRACE

if TYPE_CHECKING:
    import asyncpg

    from gateway.storage.postgres import Connection, PoolProxy

CLOSE_MARGIN = DEADLINE_GRACE + dt.timedelta(minutes=5)
"""How long after its deadline an opening may be without an end: the reaper closes it after the first part of it."""

GONE = dt.timedelta(minutes=15)
"""How long after its replica's last sign of life an opening may be without an end."""

OPENINGS_DAYS = 2
"""Openings are kept at least as long; older ones are dropped when all of them have ended."""

STATEMENT_S_MAX = 600.0
"""How long one statement may read the ledger."""

DRIFTS_MAX = 20
"""Hours or days of the rollups that one reading tells of."""

_UNCLOSED = """
SELECT count(*) AS openings, count(*) FILTER (WHERE closed.there IS NULL) AS unclosed,
       min(o.event_id::text) FILTER (WHERE closed.there IS NULL) AS example
  FROM usage_open AS o
  LEFT JOIN LATERAL (
       SELECT true AS there FROM usage_event AS e WHERE e.event_id = o.event_id AND e.opened_at = o.opened_at LIMIT 1
       ) AS closed ON true
  LEFT JOIN replica ON replica.boot_id = o.boot_id
 WHERE o.opened_at >= $1 AND o.opened_at < $2
   AND (o.deadline_at < now() - $3::interval
        OR greatest(o.ingested_at, replica.heartbeat_at) < now() - $4::interval)
"""
_UNOPENED = """
SELECT count(*) AS ends, count(*) FILTER (WHERE opened.there IS NULL) AS unopened,
       min(e.event_id::text) FILTER (WHERE opened.there IS NULL) AS example
  FROM usage_event AS e
  LEFT JOIN LATERAL (
       SELECT true AS there FROM usage_open AS o WHERE o.event_id = e.event_id AND o.opened_at = e.opened_at LIMIT 1
       ) AS opened ON true
 WHERE e.opened_at >= greatest($1, date_trunc('day', now(), 'UTC') - make_interval(days => $3)) AND e.opened_at < $2
"""
_TWICE = """
SELECT count(*) AS twice, min(event_id::text) AS example FROM (
    SELECT event_id FROM usage_event WHERE opened_at >= $1 AND opened_at < $2 GROUP BY event_id HAVING count(*) > 1
) AS repeated
"""

_KEY = "organization_id, team_id, user_id, key_id, model, served_model"
_WORDS = {
    "requests": "requests",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "cached tokens",
    "completion_tokens": "completion tokens",
    "reasoning_tokens": "reasoning tokens",
    "cost_pico_usd": "pico-USD",
}
_SUMS = tuple(_WORDS)


def _compared(table: str, period: str, expression: str) -> str:
    """Return the statement that compares a rollup with the rows below the watermark, by period and all they are of.

    Its parameters are the ends of the time, whole in the rollup's unit, as moments and as the rollup has them. It
    returns one row for each period in which anything differs.
    """
    amounts = ", ".join(_SUMS[1:])
    zeros = ", ".join("0" for _ in _SUMS)
    names = ", ".join((*(f"ledger_{name}" for name in _SUMS), *(f"rolled_{name}" for name in _SUMS)))
    sums = ", ".join(f"sum({side}_{name}) AS {side}_{name}" for side in ("ledger", "rolled") for name in _SUMS)
    differs = " OR ".join(f"ledger_{name} <> rolled_{name}" for name in _SUMS)
    return f"""
        WITH watermark AS (SELECT watermark AS xid FROM rollup_state), part (period, {_KEY}, {names}) AS (
            SELECT {expression}, {_KEY}, 1, {amounts}, {zeros} FROM usage_event, watermark
             WHERE opened_at >= $1 AND opened_at < $2 AND ingest_xid < watermark.xid
            UNION ALL
            SELECT {expression}, {_KEY}, 0, {amounts}, {zeros} FROM usage_adjustment, watermark
             WHERE opened_at >= $1 AND opened_at < $2 AND ingest_xid < watermark.xid
            UNION ALL
            SELECT {period}, {_KEY}, {zeros}, requests, {amounts} FROM {table} WHERE {period} >= $3 AND {period} < $4
        ), one AS (
            SELECT period, {_KEY}, {sums} FROM part GROUP BY period, {_KEY}
        )
        SELECT period::text AS period, count(*) AS rows, {sums} FROM one WHERE {differs}
         GROUP BY period ORDER BY period LIMIT {DRIFTS_MAX}
    """  # noqa: S608 - names of this module alone


_HOURS = _compared("usage_hour", "hour", "date_trunc('hour', opened_at, 'UTC')")
_SESSIONS = _compared("usage_session", "hour", "date_trunc('hour', opened_at, 'UTC')")
_DAYS = _compared("usage_day", "day", "(opened_at AT TIME ZONE 'UTC')::date")

# Hours and days of which the ledger still has all and the rollup has not dropped its own.
_KEPT = """
SELECT greatest($1::timestamptz, COALESCE(retired_before::timestamp AT TIME ZONE 'UTC', '-infinity')) AS events_since,
       greatest($1, COALESCE(hours_retired_before::timestamp AT TIME ZONE 'UTC', '-infinity')) AS hours_since
  FROM rollup_state
"""


async def verify_closes(connection: Connection | PoolProxy, since: dt.datetime, until: dt.datetime) -> Findings:
    """Compare openings and ends of requests opened in a time. Raises what asyncpg raises when Postgres is away.

    An opening must have its end some time after its deadline, or after its replica is gone. Ends are looked up
    among the openings of the last days alone: those before may be dropped already.
    """
    found = Findings()
    row = await _row(connection, _UNCLOSED, since, until, CLOSE_MARGIN, GONE)
    openings, unclosed = row["openings"], row["unclosed"]
    if unclosed:
        found.drifts.append(
            Drift(Check.CLOSES, f"{row['example']} …", "openings without an end", openings - unclosed, openings)
        )
    row = await _row(connection, _UNOPENED, since, until, OPENINGS_DAYS)
    ends, unopened = row["ends"], row["unopened"]
    if unopened:
        found.drifts.append(
            Drift(Check.CLOSES, f"{row['example']} …", "ends without an opening", ends, ends - unopened)
        )
    twice = await _row(connection, _TWICE, since, until)
    if twice["twice"]:
        found.drifts.append(Drift(Check.CLOSES, f"{twice['example']} …", "events with two ends", twice["twice"], 0))
    found.compared[Check.CLOSES] = openings + ends
    return found


async def verify_rollups(connection: Connection | PoolProxy, since: dt.datetime, until: dt.datetime) -> Findings:
    """Compare the rollups of the whole days that hold a time, as far as the ledger still has their events.

    Raises what asyncpg raises when Postgres is away.
    """
    found = Findings()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        kept = await _row(connection, _KEPT, since)
        day, next_day = _midnight(kept["events_since"]), _midnight(until) + dt.timedelta(days=1)
        hours = max(day, _midnight(kept["hours_since"]))
        for what, statement, first, last in (
            ("hour", _HOURS, (hours, next_day), (hours, next_day)),
            ("sessions' hour", _SESSIONS, (hours, next_day), (hours, next_day)),
            ("day", _DAYS, (day, next_day), (day.date(), next_day.date())),
        ):
            for row in await connection.fetch(statement, *first, *last, timeout=STATEMENT_S_MAX):
                found.drifts += _of_period(what, row)
    found.compared[Check.ROLLUPS] = (next_day - day).days
    return found


def _of_period(what: str, row: asyncpg.Record) -> list[Drift]:
    """Return what differs in one hour or day; where only the tenants or models differ, that."""
    subject = f"{what} {row['period']}"
    amounts = {name: (int(row[f"ledger_{name}"]), int(row[f"rolled_{name}"])) for name in _SUMS}
    drifts = [
        Drift(Check.ROLLUPS, subject, _WORDS[name], ledger, rolled)
        for name, (ledger, rolled) in amounts.items()
        if ledger != rolled
    ]
    return drifts or [Drift(Check.ROLLUPS, subject, "rows of other tenants or models", 0, row["rows"])]


def _midnight(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def _row(connection: Connection | PoolProxy, statement: str, *arguments: object) -> asyncpg.Record:
    row = await connection.fetchrow(statement, *arguments, timeout=STATEMENT_S_MAX)
    assert row is not None, "an aggregate has a row"
    return row
