"""Openings without an end: every OPEN record is looked at once, some time after it came; what is open then is kept.

Openings are read in the order in which they came (not that of their own time: a spool may bring old ones), up to a
moment before which no transaction still runs, so that none comes to be seen behind the place that was read to.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from gateway.storage.leader import Term
    from gateway.storage.postgres import Connection

SLICE_ROWS = 2_000
"""Openings that one statement looks at; more only where one transaction has written more."""

READ_S_MAX = 20.0
"""How long one run reads on: after a long pause, reading catches up over several."""

KEPT_MAX = 200_000
"""Openings that are remembered; above it reading waits until some are closed."""

CHECKED_MAX = 5_000
"""Remembered openings that one run checks for having been closed."""

_MARKS_MAX = 1_000
_TICK = dt.timedelta(microseconds=1)
_SURE_STEP = dt.timedelta(seconds=30)
"""How far the place of the next leader's beginning moves at least: it need not be written all the time."""

_NOW = """
SELECT now(), pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() AS s
"""
_SLICE_END = """
SELECT ingested_at FROM usage_open WHERE ingested_at > $1 AND ingested_at <= $2
 ORDER BY ingested_at OFFSET $3 LIMIT 1
"""
# LATERAL with LIMIT: one index probe an opening, whatever the planner believes of tables that grow all the time.
_UNCLOSED = """
SELECT o.event_id, o.opened_at, o.deadline_at, o.boot_id, o.ingested_at
  FROM usage_open AS o
  LEFT JOIN LATERAL (
       SELECT true AS there FROM usage_event AS e WHERE e.event_id = o.event_id AND e.opened_at = o.opened_at LIMIT 1
       ) AS closed ON true
 WHERE o.ingested_at > $1 AND o.ingested_at <= $2 AND closed.there IS NULL
"""
_CLOSED = """
SELECT known.event_id
  FROM unnest($1::uuid[], $2::timestamptz[]) AS known (event_id, opened_at)
 CROSS JOIN LATERAL (
       SELECT FROM usage_event AS e WHERE e.event_id = known.event_id AND e.opened_at = known.opened_at LIMIT 1
       ) AS closed
"""
_WATERMARK = "SELECT closed_before FROM reaper_state"
_MOVE_WATERMARK = "UPDATE reaper_state SET closed_before = $1 WHERE closed_before < $1"


class Opening(NamedTuple):
    """An OPEN record without a CLOSE, when last looked at."""

    event_id: UUID
    opened_at: dt.datetime
    deadline_at: dt.datetime
    boot_id: UUID
    ingested_at: dt.datetime


class _Mark(NamedTuple):
    """A moment, and the first transaction that began after it."""

    at: dt.datetime
    next_xid: int


class Unclosed:
    """What is open, as one leader knows it; made anew for each term, from the place where the last one was sure."""

    def __init__(self, read_to: dt.datetime, age_min: dt.timedelta) -> None:
        """Begin at `read_to`. Openings are looked at when they have been there for `age_min`, and a little longer."""
        self._age_min = age_min
        self._read_to = self._sure_to = read_to
        self._kept: dict[UUID, Opening] = {}
        self._marks: deque[_Mark] = deque()

    def __iter__(self) -> Iterator[Opening]:
        return iter(self._kept.values())

    @classmethod
    async def begin(cls, connection: Connection, age_min: dt.timedelta) -> Unclosed:
        """Return what goes on where the leader before was sure that all is closed."""
        return cls(await connection.fetchval(_WATERMARK), age_min)

    def drop(self, event_ids: Iterable[UUID]) -> None:
        """These are closed now."""
        for event_id in event_ids:
            self._kept.pop(event_id, None)

    async def read(self, term: Term) -> None:
        """Look at what came since the last time, forget what was closed meanwhile, and note how far all is closed.

        Raises what asyncpg raises when Postgres is away; what was read until then counts.
        """
        began_s = time.monotonic()
        async with term.connection() as connection:
            end = await self._settled_moment(connection)
            await self._forget_closed(connection)
        while end is not None and self._read_to < end:
            if len(self._kept) >= KEPT_MAX or time.monotonic() - began_s > READ_S_MAX:
                break
            async with term.connection() as connection:
                self._read_to = await self._read_slice(connection, end)
        sure_to = min((opening.ingested_at for opening in self._kept.values()), default=self._read_to + _TICK) - _TICK
        if sure_to - self._sure_to >= _SURE_STEP:
            async with term.connection() as connection:
                await connection.execute(_MOVE_WATERMARK, sure_to)
            self._sure_to = sure_to

    async def _read_slice(self, connection: Connection, end: dt.datetime) -> dt.datetime:
        """Look at the next openings, none of which came after `end`; return the moment up to which that were all."""
        slice_end: dt.datetime = await connection.fetchval(_SLICE_END, self._read_to, end, SLICE_ROWS - 1) or end
        for row in await connection.fetch(_UNCLOSED, self._read_to, slice_end):
            opening = Opening(*row)
            self._kept[opening.event_id] = opening
        return slice_end

    async def _settled_moment(self, connection: Connection) -> dt.datetime | None:
        """Return the last moment that is old enough and before which no transaction still runs, if one is new."""
        row = await connection.fetchrow(_NOW)
        assert row is not None, "a query of functions has a row"
        now, oldest_xid, next_xid = row
        self._marks.append(_Mark(now, int(next_xid)))
        if len(self._marks) > _MARKS_MAX:
            del self._marks[_MARKS_MAX // 2]  # a transaction runs for hours: coarser marks will do
        settled = None
        while self._marks and self._marks[0].at <= now - self._age_min and self._marks[0].next_xid <= int(oldest_xid):
            settled = self._marks.popleft().at
        return settled

    async def _forget_closed(self, connection: Connection) -> None:
        checked = list(islice(self._kept.values(), CHECKED_MAX))
        if not checked:
            return
        closed = await connection.fetch(
            _CLOSED, [opening.event_id for opening in checked], [opening.opened_at for opening in checked]
        )
        self.drop(row["event_id"] for row in closed)
        for opening in checked:  # those that come next are others
            if self._kept.pop(opening.event_id, None) is not None:
                self._kept[opening.event_id] = opening
