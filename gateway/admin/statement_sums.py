"""What statements have yet to say: sums of months less what was said of them; and how a month is closed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Self

import structlog

from gateway.settle.sums import TAIL
from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg

    from gateway.admin.database import Database
    from gateway.storage.postgres import Pool

CLOSE_DUE_EVERY_S = 600.0
CLOSE_DUE_S_MAX = 1800.0
STATEMENT_S_MAX = 120.0

_NAMES = "requests, estimated, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd"
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _NAMES.split(", "))
_MINUS = ", ".join(f"-{name}" for name in _NAMES.split(", "))
_ZEROS = ", ".join("0" for _ in _NAMES.split(", "))
_UNTIL = "($2::date + interval '1 month')"
_TAIL = TAIL.format(since="'-infinity'::timestamptz", until=f"{_UNTIL} AT TIME ZONE 'UTC'")

# One statement, so one snapshot: nothing is in two of the three parts, or in none.
_DIFFERENCES = f"""
SELECT summed.*, coalesce(team.name, summed.team_id::text) AS team_name FROM (
    SELECT of_month, team_id, model, {_SUMS} FROM (
        SELECT date_trunc('month', day::timestamp)::date AS of_month, team_id, served_model AS model, {_NAMES}
          FROM usage_day WHERE organization_id = $1 AND day < {_UNTIL}::date
        UNION ALL
        SELECT date_trunc('month', opened_at AT TIME ZONE 'UTC')::date, team_id, served_model, {_NAMES}
          FROM ({_TAIL}) AS tail WHERE organization_id = $1
        UNION ALL
        SELECT of_month, team_id, model, {_MINUS} FROM statement_line WHERE organization_id = $1
    ) AS part GROUP BY of_month, team_id, model
) AS summed LEFT JOIN team ON team.organization_id = $1 AND team.id = summed.team_id
 WHERE ({_NAMES}) <> ({_ZEROS})
 ORDER BY of_month, team_name, team_id, model
"""  # noqa: S608 - constants of this module and of its neighbour
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('penstock_statement'), hashtext($1::uuid::text))"
_CLOSED = "SELECT max(month) FROM statement WHERE organization_id = $1"
_INSERT = """
INSERT INTO statement (organization_id, number, month, organization_name, source)
SELECT $1, coalesce((SELECT max(number) FROM statement WHERE organization_id = $1), 0) + 1, $2, name, $3
  FROM organization WHERE organization.id = $1
RETURNING *
"""
_INSERT_LINES = f"""
INSERT INTO statement_line (organization_id, statement_id, line, of_month, team_id, model, {_NAMES}, team_name)
SELECT $1, $2, * FROM unnest($3::int[], $4::date[], $5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::numeric[],
    $10::numeric[], $11::numeric[], $12::numeric[], $13::numeric[], $14::text[])
"""  # noqa: S608 - constants of this module
_DUE = "SELECT closed_through FROM statement_state"
# unscoped: the leader closes months of all
_ORGANIZATIONS = "SELECT id FROM organization ORDER BY id"
_CLOSED_THROUGH = """
UPDATE statement_state SET closed_through = $1 WHERE closed_through IS NULL OR closed_through < $1
"""

_log = structlog.get_logger("penstock.statements")


class Sums(NamedTuple):
    """What one team used of one model in one month, or what is missing of that. As columns of `statement_line`."""

    of_month: dt.date
    team_id: UUID
    model: str
    requests: int
    estimated: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_pico_usd: int
    team_name: str

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Return what a row has that has columns of these names."""
        cells = (row[name] for name in cls._fields)
        return cls._make(int(cell) if isinstance(cell, Decimal) else cell for cell in cells)


@dataclass(frozen=True, slots=True)
class Pending:
    """What no statement has said yet of the months up to one. `closed` is the last month that is closed, if any is."""

    closed: dt.date | None
    sums: tuple[Sums, ...]

    @property
    def open(self) -> list[dt.date]:
        """The months after the last closed one that have something to say, in order."""
        return sorted({one.of_month for one in self.sums if self.closed is None or one.of_month > self.closed})

    def of_statement(self, month: dt.date) -> list[Sums]:
        """Return the lines of a month's statement: its own, then corrections of earlier ones.

        Corrections go into the first statement that is closed, so a later one's draft has none.
        """
        own = [one for one in self.sums if one.of_month == month]
        if self.closed is None or (self.open and self.open[0] < month):
            return own
        return own + [one for one in self.sums if one.of_month <= self.closed]


async def lock(db: Database, organization_id: UUID) -> None:
    """Let nobody else close a month of this organization until the transaction ends; to be called before asking."""
    await db.execute(_LOCK, organization_id)


async def differences(db: Database, organization_id: UUID, through: dt.date) -> Pending:
    """Return what the statements of an organization have not said yet of its months up to `through`."""
    closed = await db.fetchval(_CLOSED, organization_id)
    rows = await db.fetch(_DIFFERENCES, organization_id, through)
    return Pending(closed, tuple(map(Sums.of, rows)))


async def close(
    db: Database, organization_id: UUID, month: dt.date, pending: Pending, *, source: str
) -> asyncpg.Record:
    """Write the statement of a month, which has to be the next one, and return its row."""
    row = await db.fetchrow(_INSERT, organization_id, month, source)
    assert row is not None, "organizations stay"
    lines = pending.of_statement(month)
    columns = [list(column) for column in zip(*lines, strict=True)]
    await db.execute(_INSERT_LINES, organization_id, row["id"], list(range(1, len(lines) + 1)), *columns)
    return row


async def close_due(pool: Pool, *, after: dt.timedelta, now: dt.datetime | None = None) -> int:
    """Close all months that ended `after` ago or longer, of every organization that used something; return how many.

    Each in a transaction of its own: stopped at any moment, the next run goes on there. Once all are closed, one short
    question tells that nothing is due until the next month has ended.
    """
    now = dt.datetime.now(dt.UTC) if now is None else now
    due = ((now - after).date().replace(day=1) - dt.timedelta(days=1)).replace(day=1)
    async with borrowed(pool, STATEMENT_S_MAX) as connection:
        closed_through = await connection.fetchval(_DUE)
        if closed_through is not None and closed_through >= due:
            return 0
        organizations = [row["id"] for row in await connection.fetch(_ORGANIZATIONS)]
    closed = 0
    for organization_id in organizations:
        while await _close_next(pool, organization_id, due):
            closed += 1
    async with borrowed(pool, STATEMENT_S_MAX) as connection:
        await connection.execute(_CLOSED_THROUGH, due)
    return closed


async def _close_next(pool: Pool, organization_id: UUID, due: dt.date) -> bool:
    """Close the first month of an organization that has something to say, if it is due."""
    async with borrowed(pool, STATEMENT_S_MAX) as connection, connection.transaction():
        await lock(connection, organization_id)
        pending = await differences(connection, organization_id, due)
        month = pending.open[0] if pending.open else due
        if not pending.sums or (pending.closed is not None and pending.closed >= month):
            return False
        row = await close(connection, organization_id, month, pending, source="schedule")
    _log.info("statement_closed", organization=str(organization_id), month=f"{month:%Y-%m}", number=row["number"])
    return True
