"""What was spent of budgets, from the ledger: the truth that the counters in Redis are rebuilt from and held against.

Periods start at midnight in UTC, so days of the rollup, the rows that are not in it yet, and what requests in flight
may cost at most are all there is to add; one statement, so one snapshot: nothing is counted twice or left out. Of a
session all that is kept of its hours counts, however long ago.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from gateway.domain.budget import Spent
from gateway.domain.principal import TENANT_LEVELS
from gateway.errors import BudgetUnknown
from gateway.settle.sums import TAIL
from gateway.storage.postgres import AWAY_ERRORS, borrowed
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.domain.budget import BudgetKey
    from gateway.storage.postgres import Connection, Pool, PoolProxy

SPENT_S_MAX = 2.0
BUDGETS_MAX = 1000
"""How many budgets one statement sums up."""

OVERDUE_S_MAX = 900.0
"""An OPEN that is not closed counts until this long after its deadline, by when it is closed for whoever did not."""

OPEN_AGE_MAX = dt.timedelta(days=2)
"""No OPEN is older than this and in time: the longest time that a request may take is a day."""

CLOCKS_APART_MAX = dt.timedelta(days=1)
"""How far ahead of this replica's clock another's may have opened a request."""

SESSION_TAIL_MAX = dt.timedelta(days=8)
"""Rows that are not rolled up yet count for sessions from so long ago on; older ones do once they are, in seconds."""


def _its_own(row: str) -> str:
    """Return the SQL that tells whether a row is of the budget's subject and model."""
    return f"""CASE b.level WHEN 'organization' THEN true WHEN 'team' THEN {row}.team_id = b.subject_id
                   WHEN 'user' THEN {row}.user_id = b.subject_id WHEN 'key' THEN {row}.key_id = b.subject_id END
           AND (b.model IS NULL OR {row}.model = b.model)"""


# OFFSET 0 keeps Postgres from joining the openings with whole partitions of events: each is looked up by its key.
_OPEN = f"""
       (SELECT coalesce(sum(o.estimate_cost_pico_usd), 0) FROM usage_open o
         WHERE o.organization_id = b.organization_id AND {{which}}
           AND o.deadline_at > now() - make_interval(secs => $1) AND o.opened_at >= $2 AND o.opened_at < $3
           AND {_its_own("o")}
           AND NOT EXISTS (SELECT FROM usage_event e WHERE e.event_id = o.event_id AND e.opened_at = o.opened_at
                              AND e.opened_at >= $2 AND e.opened_at < $3 OFFSET 0)) AS open
  FROM budget b ORDER BY b.position
"""  # noqa: S608 - constants of this module

_BUDGETS = """
SELECT * FROM unnest($5::uuid[], $6::text[], $7::uuid[], $8::text[], {more}) WITH ORDINALITY
    AS b (organization_id, level, subject_id, model, {names}, position)
"""

_SPENT = f"""
WITH budget AS (
    SELECT *, (since AT TIME ZONE 'UTC')::date AS since_day, (until AT TIME ZONE 'UTC')::date AS until_day
      FROM ({_BUDGETS.format(more="$9::timestamptz[], $10::timestamptz[]", names="since, until")}) AS b
), tail AS MATERIALIZED ({TAIL.format(since="$4", until="$3")}
)
SELECT (SELECT coalesce(sum(d.cost_pico_usd), 0) FROM usage_day d
         WHERE d.organization_id = b.organization_id AND d.day >= b.since_day AND d.day < b.until_day
           AND {_its_own("d")})
     + (SELECT coalesce(sum(t.cost_pico_usd), 0) FROM tail t
         WHERE t.organization_id = b.organization_id AND t.opened_at >= b.since AND t.opened_at < b.until
           AND {_its_own("t")}) AS closed,
{_OPEN.format(which="o.opened_at >= b.since AND o.opened_at < b.until")}"""  # noqa: S608 - constants

_SPENT_BY_SESSIONS = f"""
WITH budget AS ({_BUDGETS.format(more="$9::text[]", names="session")}
), tail AS MATERIALIZED (
    SELECT * FROM ({TAIL.format(since="$4", until="$3")}) AS t WHERE t.session = ANY ($9)
)
SELECT (SELECT coalesce(sum(s.cost_pico_usd), 0) FROM usage_session s
         WHERE s.organization_id = b.organization_id AND s.session = b.session AND {_its_own("s")})
     + (SELECT coalesce(sum(t.cost_pico_usd), 0) FROM tail t
         WHERE t.organization_id = b.organization_id AND t.session = b.session AND {_its_own("t")}) AS closed,
{_OPEN.format(which="o.session = b.session")}"""  # noqa: S608 - constants

_REAPED = "SELECT event_id FROM usage_event WHERE event_id = ANY($1::uuid[]) AND opened_at >= $2 AND reaped"


class Spending:
    """Sums budgets up. It borrows a connection of the pool for each call."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def spent(self, budgets: Sequence[BudgetKey]) -> list[Spent]:
        """Return for each what requests of its period or session have cost, and what those in flight may at most.

        Exact to the pico-USD: events with their adjustments, by the time at which the request was opened.

        Raises:
            BudgetUnknown: Postgres did not answer within SPENT_S_MAX.
        """
        spent: list[Spent] = []
        for start in range(0, len(budgets), BUDGETS_MAX):
            spent += await self._spent(budgets[start : start + BUDGETS_MAX])
        return spent

    async def reaped(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these events, none older than OPEN_AGE_MAX, were closed for a replica that died.

        Raises:
            BudgetUnknown: Postgres did not answer within SPENT_S_MAX.
        """
        if not event_ids:
            return set()
        since = dt.datetime.now(dt.UTC) - OPEN_AGE_MAX
        try:
            async with borrowed(self._pool, SPENT_S_MAX) as connection:
                rows = await connection.fetch(_REAPED, event_ids, since)
        except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
            raise BudgetUnknown("which requests have died cannot be told now", retry_after_s=1.0) from error
        return {UUID(int=row["event_id"].int) for row in rows}

    async def _spent(self, budgets: Sequence[BudgetKey]) -> list[Spent]:
        try:
            async with borrowed(self._pool, SPENT_S_MAX) as connection:
                return await sum_up(connection, budgets)
        except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
            raise BudgetUnknown("what was spent of a budget cannot be summed up now", retry_after_s=1.0) from error


async def sum_up(connection: Connection | PoolProxy, budgets: Sequence[BudgetKey]) -> list[Spent]:
    """Do as `Spending.spent` does for 1 to BUDGETS_MAX budgets. Raises what asyncpg raises."""
    assert all(budget.level in TENANT_LEVELS for budget in budgets), "budgets are tenants'"
    dated = [budget for budget in budgets if budget.session is None]
    of_sessions = [budget for budget in budgets if budget.session is not None]
    spent: dict[BudgetKey, Spent] = {}
    # Times are known when a statement is planned, so that partitions of other days are not even opened.
    now = dt.datetime.now(dt.UTC)
    if dated:
        starts, ends = [each.period_start for each in dated], [each.period_end for each in dated]
        since, until = min(starts), min(max(ends), now + CLOCKS_APART_MAX)
        bounds = (OVERDUE_S_MAX, max(since, now - OPEN_AGE_MAX), until, since)
        rows = await connection.fetch(_SPENT, *bounds, *_columns(dated), starts, ends)
        spent |= zip(dated, map(_spent, rows), strict=True)
    if of_sessions:
        bounds = (OVERDUE_S_MAX, now - OPEN_AGE_MAX, now + CLOCKS_APART_MAX, now - SESSION_TAIL_MAX)
        names = [each.session for each in of_sessions]
        rows = await connection.fetch(_SPENT_BY_SESSIONS, *bounds, *_columns(of_sessions), names)
        spent |= zip(of_sessions, map(_spent, rows), strict=True)
    return [spent[each] for each in budgets]


def _columns(budgets: Sequence[BudgetKey]) -> tuple[list[object], ...]:
    return (
        [budget.organization_id for budget in budgets],
        [budget.level.value for budget in budgets],
        [budget.subject_id for budget in budgets],
        [budget.model for budget in budgets],
    )


def _spent(row: asyncpg.Record) -> Spent:
    return Spent(PicoUsd(int(row["closed"])), PicoUsd(int(row["open"])))
