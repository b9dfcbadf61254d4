"""Retention: partitions of the ledger and hours of the rollup that have served their time are dropped, one at a time.

What may be dropped is decided by the functions that do it (see their migration), whatever is asked for here: nothing
younger than two days, no OPEN that is not closed, no event that is not rolled up. Days and totals are kept for ever, so
no sum over whole days and no bill changes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import structlog

from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from gateway.storage.postgres import Pool

RETENTION_EVERY_S = 300.0
RETENTION_S_MAX = 240.0
STATEMENT_S_MAX = 60.0
DROPPED_MAX = 100
"""Partitions dropped in one run: each takes the lock of its table for a moment."""

HOURS_ROWS_MAX = 20_000
"""Rows of the hourly rollup deleted in one statement."""

# Openings before events: whether an opening is closed is read from the events.
_DUE = r"""
SELECT kind, day FROM (
    SELECT p.relname::text AS kind, to_date(right(c.relname::text, 8), 'YYYYMMDD') AS day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
     WHERE i.inhparent IN ('usage_open'::regclass, 'usage_event'::regclass) AND c.relname ~ '^usage_[a-z]+_\d{8}$'
) AS partition
 WHERE CASE kind WHEN 'usage_open' THEN day < $1 ELSE day < $2 END
 ORDER BY day, kind DESC
"""
_RETIRE = "SELECT penstock_retire_partition($1, $2)"
_RETIRE_HOURS = "SELECT penstock_retire_hours($1, $2)"

_log = structlog.get_logger("penstock.retention")


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many whole days each kind of record is kept; None: for ever. At least 2 where it is a number."""

    opens_days: int
    events_days: int | None = None
    hours_days: int | None = None


async def retire(pool: Pool, keep: Retention) -> int:
    """Drop what has served its time and can be dropped; return how many partitions that were.

    A table that is in use is left for the next run, as is a partition that must stay for now: traffic never waits for
    more than the 50 ms that a lock is asked for. Raises what asyncpg raises when Postgres is away, or its role may not.
    """
    today = dt.datetime.now(dt.UTC).date()
    first = dt.date.min
    opens_before = _before(today, keep.opens_days)
    events_before = first if keep.events_days is None else _before(today, keep.events_days)
    async with borrowed(pool, STATEMENT_S_MAX) as connection:
        due = [(row["kind"], row["day"]) for row in await connection.fetch(_DUE, opens_before, events_before)]
    dropped = 0
    for kind, day in due:
        outcome = await _retire(pool, kind, day)
        if outcome == "dropped":
            dropped += 1
            _log.info("partition_dropped", table=kind, day=day.isoformat())
        elif outcome not in {"gone", "kept"}:
            _log.info("partition_stays", table=kind, day=day.isoformat(), reason=outcome)
        if dropped == DROPPED_MAX:
            break
    if keep.hours_days is not None:
        await _retire_hours(pool, _before(today, keep.hours_days))
    return dropped


def _before(today: dt.date, days: int) -> dt.date:
    """Return the first day that is kept: every moment of those before it is at least `days` days old."""
    return today - dt.timedelta(days=days)


async def _retire(pool: Pool, kind: str, day: dt.date) -> str:
    try:
        async with borrowed(pool, STATEMENT_S_MAX) as connection:
            outcome: str = await connection.fetchval(_RETIRE, kind, day, timeout=STATEMENT_S_MAX)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        return "in use"
    return outcome


async def _retire_hours(pool: Pool, before: dt.date) -> None:
    removed = HOURS_ROWS_MAX
    while removed == HOURS_ROWS_MAX:
        async with borrowed(pool, STATEMENT_S_MAX) as connection:
            removed = await connection.fetchval(_RETIRE_HOURS, before, HOURS_ROWS_MAX)
