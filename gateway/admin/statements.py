"""Statements: what an organization used in a month and what it cost, frozen when the month is closed.

A statement's lines never change. What comes later for its month (a late event, a rerate) is a line of the next one that
is closed: for every earlier month it holds what the ledger says now less what all statements before have said. So the
sum of all statements is the ledger's sum of all months that are closed, to the last pico-USD, whatever came when.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import id_and_name, quoted
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.statement_sums import Sums, close, differences, lock
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.units import PicoUsd, format_usd

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
YEAR_MIN = 1970
NAMESAKES_MAX = 10


@dataclass(frozen=True, slots=True)
class StatementLine:
    """What one team used of one model: in the statement's own month (`usage`), or what an earlier one is corrected by.

    `team` is the name that the team had. `cost_usd` is an exact decimal number; in adjustments all may be negative.
    """

    kind: Literal["usage", "adjustment"]
    of_month: str
    team_id: UUID
    team: str
    model: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    estimated: int
    cost_usd: str


@dataclass(frozen=True, slots=True)
class StatementSummary:
    """A closed statement without its lines. `number` counts those of the organization, `month` is like 2026-08.

    `organization` is the name that it had when the month was closed. `cost_usd` is `usage_usd` and `adjustments_usd`.
    `source` tells whether the month was closed by `schedule`, or by hand (`manual`).
    """

    id: UUID
    organization_id: UUID
    organization: str
    number: int
    month: str
    closed_at: dt.datetime
    source: str
    usage_usd: str
    adjustments_usd: str
    cost_usd: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its lines, those of its own month first.

    A `draft` is what it would say if its month were closed now: it has no number, and changes with the ledger.
    """

    id: UUID | None
    organization_id: UUID
    organization: str
    number: int | None
    month: str
    draft: bool
    closed_at: dt.datetime | None
    source: str | None
    usage_usd: str
    adjustments_usd: str
    cost_usd: str
    lines: tuple[StatementLine, ...]


def parse_month(text: str, param: str = "month") -> dt.date:
    """Return the first day of `2026-08`. Raises InvalidRequest."""
    match = _MONTH.fullmatch(text.strip())
    if match is None or int(match[1]) < YEAR_MIN:
        raise InvalidRequest(f"{param} must look like 2026-08", param=param)
    return dt.date(int(match[1]), int(match[2]), 1)


def month_of(moment: dt.datetime) -> dt.date:
    """Return the first day of a moment's month in UTC."""
    return moment.astimezone(dt.UTC).date().replace(day=1)


async def list_statements(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, *, organization: str | None = None
) -> list[StatementSummary]:
    """Return the closed statements within the scope, one page, by id. Raises NotFound, Forbidden for a person."""
    scope.require_organization("see statements")
    if organization is not None:
        scope = scope.within((await _find(db, scope, organization))[0])
    rows = await db.fetch(
        """
        SELECT statement.*, usage_sum, adjustment_sum
          FROM statement CROSS JOIN LATERAL (
               SELECT coalesce(sum(cost_pico_usd) FILTER (WHERE of_month = statement.month), 0) AS usage_sum,
                      coalesce(sum(cost_pico_usd) FILTER (WHERE of_month < statement.month), 0) AS adjustment_sum
                 FROM statement_line AS line
                WHERE line.organization_id = statement.organization_id AND line.statement_id = statement.id) AS sums
         WHERE ($1::uuid IS NULL OR statement.organization_id = $1) AND ($2::uuid IS NULL OR statement.id > $2)
         ORDER BY statement.id LIMIT $3
        """,
        scope.organization_id,
        page.after,
        page.limit,
    )
    return [
        StatementSummary(
            row["id"],
            row["organization_id"],
            row["organization_name"],
            row["number"],
            f"{row['month']:%Y-%m}",
            row["closed_at"],
            row["source"],
            _usd(row["usage_sum"]),
            _usd(row["adjustment_sum"]),
            _usd(row["usage_sum"] + row["adjustment_sum"]),
        )
        for row in rows
    ]


async def show_statement(db: Database, scope: Scope, month: dt.date, *, organization: str | None) -> Statement:
    """Return an organization's statement of a month: as it was closed, or as a draft.

    Args:
        organization: id or name, also of a deleted one; None: the caller's own.

    Raises NotFound, also for a month that had nothing to say when a later one was closed; InvalidRequest for a month
    that has not begun; Forbidden for a person.
    """
    scope.require_organization("see statements")
    organization_id, name = await _find(db, scope, organization)
    row = await db.fetchrow("SELECT * FROM statement WHERE organization_id = $1 AND month = $2", organization_id, month)
    if row is not None:
        return await _closed(db, row)
    if month > month_of(dt.datetime.now(dt.UTC)):
        raise InvalidRequest("month has not begun", param="month")
    pending = await differences(db, organization_id, month)
    if pending.closed is not None and month < pending.closed:
        raise NotFound(
            f"{month:%Y-%m} had nothing to say when {pending.closed:%Y-%m} was closed;"
            " what has come since is in the statements after it",
            param="month",
        )
    sums = pending.of_statement(month)
    usage, adjustments, both = _totals(sums, month)
    return Statement(
        id=None,
        organization_id=organization_id,
        organization=name,
        number=None,
        month=f"{month:%Y-%m}",
        draft=True,
        closed_at=None,
        source=None,
        usage_usd=usage,
        adjustments_usd=adjustments,
        cost_usd=both,
        lines=_lines(sums, month),
    )


async def close_statement(db: Database, scope: Scope, month: dt.date, *, organization: str) -> Statement:
    """Close an organization's month (the organization by id or name), and return the statement.

    Raises Conflict when the month has not ended, when it or a later one is closed, when an earlier one has to be closed
    first, and when there is nothing to say; NotFound, Forbidden outside the platform.
    """
    scope.require_platform("close months")
    organization_id, _ = await _find(db, scope, organization)
    if month >= month_of(dt.datetime.now(dt.UTC)):
        raise Conflict(f"{month:%Y-%m} has not ended (UTC)", param="month")
    await lock(db, organization_id)
    pending = await differences(db, organization_id, month)
    if pending.closed is not None and month <= pending.closed:
        raise Conflict(f"{pending.closed:%Y-%m} is closed already; what comes late is in the next one", param="month")
    if pending.open and pending.open[0] < month:
        raise Conflict(
            f"close {pending.open[0]:%Y-%m} first: statements are closed in the order of months", param="month"
        )
    if not pending.of_statement(month):
        raise Conflict(f"nothing was used in {month:%Y-%m}, and nothing is to be corrected", param="month")
    return await _closed(db, await close(db, organization_id, month, pending, source="manual"))


async def _find(db: Database, scope: Scope, reference: str | None) -> tuple[UUID, str]:
    """Return id and name of an organization within the scope, also a deleted one; the living go before the dead."""
    if reference is None:
        if scope.organization_id is None:
            raise InvalidRequest("say which organization", param="organization")
        reference = str(scope.organization_id)
    rows = await db.fetch(
        """
        SELECT id, name, deleted_at FROM organization
         WHERE ($1::uuid IS NULL OR id = $1) AND (id = $2 OR name = $3) ORDER BY deleted_at DESC NULLS FIRST LIMIT $4
        """,
        scope.organization_id,
        *id_and_name(reference),
        NAMESAKES_MAX,
    )
    if not rows:
        raise NotFound(f"no organization {quoted(reference)}", param="organization")
    if rows[0]["deleted_at"] is not None and len(rows) > 1:
        ids = ", ".join(str(row["id"]) for row in rows)
        raise InvalidRequest(f"several deleted organizations were called so: {ids}; give an id", param="organization")
    return rows[0]["id"], rows[0]["name"]


async def _closed(db: Database, row: asyncpg.Record) -> Statement:
    rows = await db.fetch(
        "SELECT * FROM statement_line WHERE organization_id = $1 AND statement_id = $2 ORDER BY line",
        row["organization_id"],
        row["id"],
    )
    lines = [Sums.of(line) for line in rows]
    month = row["month"]
    usage, adjustments, both = _totals(lines, month)
    return Statement(
        id=row["id"],
        organization_id=row["organization_id"],
        organization=row["organization_name"],
        number=row["number"],
        month=f"{month:%Y-%m}",
        draft=False,
        closed_at=row["closed_at"],
        source=row["source"],
        usage_usd=usage,
        adjustments_usd=adjustments,
        cost_usd=both,
        lines=_lines(lines, month),
    )


def _totals(sums: Sequence[Sums], month: dt.date) -> tuple[str, str, str]:
    """Return what usage and adjustments cost, and both."""
    usage = sum(one.cost_pico_usd for one in sums if one.of_month == month)
    total = sum(one.cost_pico_usd for one in sums)
    return _usd(usage), _usd(total - usage), _usd(total)


def _lines(sums: Sequence[Sums], month: dt.date) -> tuple[StatementLine, ...]:
    return tuple(
        StatementLine(
            "usage" if one.of_month == month else "adjustment",
            f"{one.of_month:%Y-%m}",
            one.team_id,
            one.team_name,
            one.model,
            one.requests,
            one.prompt_tokens,
            one.cached_tokens,
            one.completion_tokens,
            one.reasoning_tokens,
            one.estimated,
            _usd(one.cost_pico_usd),
        )
        for one in sums
    )


def _usd(amount: int | Decimal) -> str:
    return format_usd(PicoUsd(int(amount)))
