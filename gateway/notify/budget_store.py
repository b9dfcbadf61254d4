"""What the leader asks Postgres about budgets: whose are watched, what was spent of which since it looked last.

The work is in what was spent and not in how many budgets there are: rows of the ledger since the last look are summed
up by key and model, and from there each rule is found by its index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.domain.budget import BudgetKey
from gateway.domain.principal import BudgetPeriod, Level
from gateway.notify.events import BUDGET_THRESHOLD, BudgetRule
from gateway.units import PicoUsd

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    import asyncpg

    from gateway.storage.postgres import Connection, PoolProxy

PERIODS = (BudgetPeriod.DAY, BudgetPeriod.WEEK, BudgetPeriod.MONTH)
"""Budgets of sessions are not told of: they are many, and over before anybody could do something."""

CHANGES_MAX = 1000
"""Changed rules looked at in one run."""

_STATE = """
SELECT w.looked_until::text, r.watermark::text, pg_snapshot_xmin(pg_current_snapshot())::text AS horizon, now() AS now,
       EXISTS (SELECT FROM webhook WHERE disabled_at IS NULL AND $1 = ANY (events)) AS watched
  FROM webhook_watch w, rollup_state r
"""
_MOVE = "UPDATE webhook_watch SET looked_until = $1::text::xid8 WHERE looked_until IS DISTINCT FROM $1::text::xid8"

_COLUMNS = """r.id, r.organization_id, r.level, r.subject_id, NULLIF(r.model, '') AS model,
    r.budget_day_pico_usd, r.budget_week_pico_usd, r.budget_month_pico_usd"""
_HAS_BUDGET = "num_nonnulls(r.budget_day_pico_usd, r.budget_week_pico_usd, r.budget_month_pico_usd) > 0"
_WATCHED = """watched AS MATERIALIZED (
    SELECT DISTINCT organization_id FROM webhook WHERE disabled_at IS NULL AND $1 = ANY (events)
)"""
_IS_WATCHED = """(EXISTS (SELECT FROM watched WHERE organization_id IS NULL)
        OR {0}.organization_id IN (SELECT organization_id FROM watched WHERE organization_id IS NOT NULL))"""

# OFFSET 0 keeps Postgres from reading all rules to join them: it does not know how few were used.
SPENT_SINCE = f"""
WITH {_WATCHED}, used AS MATERIALIZED (
    SELECT p.organization_id, p.team_id, p.user_id, p.key_id, p.model,
           (p.opened_at AT TIME ZONE 'UTC')::date AS day, sum(p.cost_pico_usd) AS cost
      FROM penstock_usage_parts($2::text::xid8, '18446744073709551615'::xid8, $3, $4) AS p
     WHERE {_IS_WATCHED.format("p")}
     GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(p.cost_pico_usd) > 0
), subject AS MATERIALIZED (
    SELECT u.organization_id, s.level, s.subject_id, u.model, u.day, sum(u.cost) AS cost
      FROM used u CROSS JOIN LATERAL (VALUES ('organization', u.organization_id), ('team', u.team_id),
           ('user', u.user_id), ('key', u.key_id)) AS s (level, subject_id)
     WHERE s.subject_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5
)
SELECT rule.*, s.day, sum(s.cost) AS cost
  FROM subject s CROSS JOIN LATERAL (
       SELECT {_COLUMNS} FROM limit_rule r
        WHERE r.subject_id = s.subject_id AND r.level = s.level AND r.model IN ('', s.model)
          AND r.organization_id = s.organization_id AND {_HAS_BUDGET} OFFSET 0) AS rule
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""  # noqa: S608 - constants of this module

_TAKE_CHANGES = """
WITH {watched}, taken AS (
    DELETE FROM webhook_budget_change WHERE rule_id = ANY (ARRAY(
        SELECT rule_id FROM webhook_budget_change LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING rule_id, organization_id
)
SELECT t.rule_id FROM taken t WHERE {is_watched}
""".format(watched=_WATCHED, is_watched=_IS_WATCHED.format("t"))  # noqa: S608 - constants of this module

# A statement of its own, after the changes are taken: it sees what they changed the rules to.
_RULES = f"SELECT {_COLUMNS} FROM limit_rule r WHERE r.id = ANY ($1::uuid[]) AND {_HAS_BUDGET}"  # noqa: S608 - constants
_RULES_OF = f"""
SELECT {_COLUMNS}
  FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[]) AS b (organization_id, level, subject_id, model)
 CROSS JOIN LATERAL (SELECT * FROM limit_rule r WHERE r.subject_id = b.subject_id AND r.level = b.level
                        AND r.model = b.model AND r.organization_id = b.organization_id OFFSET 0) AS r
"""  # noqa: S608 - constants of this module

_NAMES = """
SELECT r.id, r.organization_id, o.name AS organization, CASE r.level
           WHEN 'organization' THEN o.name
           WHEN 'team' THEN (SELECT name FROM team t WHERE t.id = r.subject_id AND t.organization_id = o.id)
           WHEN 'user' THEN (SELECT name FROM app_user u WHERE u.id = r.subject_id AND u.organization_id = o.id)
           ELSE (SELECT coalesce(NULLIF(k.name, ''), k.public_id) FROM api_key k
                  WHERE k.id = r.subject_id AND k.organization_id = o.id)
       END AS subject
  FROM limit_rule r JOIN organization o ON o.id = r.organization_id WHERE r.id = ANY ($1::uuid[])
"""


class State(NamedTuple):
    """How far was looked, None when nobody wanted to know; up to where every transaction has ended; Postgres' time."""

    looked_until: int | None
    watermark: int
    horizon: int
    now: dt.datetime
    watched: bool


class Rule(NamedTuple):
    """A rule's budgets, and what was spent of them by day since the last look, as far as that is asked."""

    id: UUID
    organization_id: UUID
    level: Level
    subject_id: UUID
    model: str | None
    amounts: dict[BudgetPeriod, PicoUsd]

    def budget(self, period: BudgetPeriod, start: dt.datetime) -> BudgetKey:
        """Return one of its budgets."""
        return BudgetKey(self.organization_id, self.level, self.subject_id, self.model, period, start)


async def state(connection: Connection | PoolProxy) -> State:
    """Return where the watch stands."""
    row = await connection.fetchrow(_STATE, BUDGET_THRESHOLD)
    assert row is not None, "both tables have their row from the beginning"
    looked = row["looked_until"]
    return State(
        None if looked is None else int(looked), int(row["watermark"]), int(row["horizon"]), row["now"], row["watched"]
    )


async def move(connection: Connection | PoolProxy, looked_until: int | None) -> None:
    """Write down how far was looked; None while nobody wants to know."""
    await connection.execute(_MOVE, None if looked_until is None else str(looked_until))


async def spent_since(
    connection: Connection | PoolProxy, looked_until: int, since: dt.datetime, until: dt.datetime
) -> list[tuple[Rule, dt.date, int]]:
    """Return the watched rules that something was spent of, with how much by day, in pico-USD.

    Of requests that were opened in the period and that a transaction from `looked_until` on wrote down.
    """
    rows = await connection.fetch(SPENT_SINCE, BUDGET_THRESHOLD, str(looked_until), since, until)
    return [(_rule(row), row["day"], int(row["cost"])) for row in rows]


async def take_changed(connection: Connection | PoolProxy) -> list[Rule]:
    """Return the watched rules whose amounts were changed, at most CHANGES_MAX; they are not returned again."""
    taken = await connection.fetch(_TAKE_CHANGES, BUDGET_THRESHOLD, CHANGES_MAX)
    if not taken:
        return []
    return [_rule(row) for row in await connection.fetch(_RULES, [row["rule_id"] for row in taken])]


async def rules_of(connection: Connection | PoolProxy, budgets: Sequence[BudgetKey]) -> list[Rule]:
    """Return the rules that these budgets are of, as far as they are there still."""
    rows = await connection.fetch(
        _RULES_OF,
        [budget.organization_id for budget in budgets],
        [budget.level.value for budget in budgets],
        [budget.subject_id for budget in budgets],
        [budget.model or "" for budget in budgets],
    )
    return [_rule(row) for row in rows]


async def named(connection: Connection | PoolProxy, rules: Iterable[UUID]) -> dict[UUID, BudgetRule]:
    """Return rules with the names that people know."""
    rows = await connection.fetch(_NAMES, list(rules))
    return {row["id"]: BudgetRule(**row) for row in rows}


def _rule(row: asyncpg.Record) -> Rule:
    amounts = {
        period: PicoUsd(int(row[f"budget_{period}_pico_usd"]))
        for period in PERIODS
        if row[f"budget_{period}_pico_usd"] is not None
    }
    return Rule(row["id"], row["organization_id"], Level(row["level"]), row["subject_id"], row["model"], amounts)
