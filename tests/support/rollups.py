"""Rows of the ledger by the dozen, and whether rollups with their tail say what the rows say, in one snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from tests.support.ledger import event_id_at

if TYPE_CHECKING:
    import datetime as dt

    from gateway.storage.postgres import Connection, PoolProxy

_EVENT = """
INSERT INTO usage_event (event_id, opened_at, boot_id, organization_id, team_id, user_id, key_id, model, served_model,
    engine, endpoint, session, streamed, attempts, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    cost_pico_usd, status, coverage, duration_ms, reaped)
VALUES ($1, $2, $1, $3, $4, $5, $6, $7, $7, $8, 'chat.completions', $12, true, 1, 100, 40, 10, 3, $9, 'ok', $10,
    5, $11)
"""
_ADJUSTMENT = """
INSERT INTO usage_adjustment (event_id, opened_at, batch_id, reason, organization_id, team_id, user_id, key_id, model,
    served_model, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, 0, 0, 0, $11)
"""
_OPEN = """
INSERT INTO usage_open (event_id, opened_at, deadline_at, boot_id, organization_id, team_id, user_id, key_id, model,
    estimate_prompt_tokens, estimate_completion_tokens, estimate_cost_pico_usd, session)
VALUES ($1, $2, $2::timestamptz + interval '30 minutes', $1, $3, $4, $5, $6, $7, 1, 1, $8, $9)
"""

_SUMS = """sum(requests)::bigint, sum(estimated)::bigint, sum(prompt_tokens)::numeric, sum(cached_tokens)::numeric,
    sum(completion_tokens)::numeric, sum(reasoning_tokens)::numeric, sum(cost_pico_usd)::numeric"""
_KEY = "organization_id, team_id, user_id, key_id, model, served_model, engine"
_PARTS = "penstock_usage_parts({}, '18446744073709551615'::xid8, '-infinity', 'infinity')"
_ROWS = _PARTS.format("'0'::xid8")
_TAIL = _PARTS.format("(SELECT watermark FROM rollup_state)")
_COLUMNS = f"""{_KEY}, requests, estimated, prompt_tokens::numeric, cached_tokens::numeric, completion_tokens::numeric,
    reasoning_tokens::numeric, cost_pico_usd"""


def _differing(table: str, period: str, expression: str, more: str = "") -> str:
    rows = f"SELECT {expression} AS period, {_KEY}{more}, {_SUMS} FROM {_ROWS} AS part GROUP BY 1, {_KEY}{more}"  # noqa: S608 - constants
    known = f"""
        SELECT period, {_KEY}{more}, {_SUMS} FROM (
            SELECT {period} AS period, {_COLUMNS}{more} FROM {table}
            UNION ALL SELECT {expression}, {_COLUMNS}{more} FROM {_TAIL} AS tail) AS known GROUP BY 1, {_KEY}{more}
    """  # noqa: S608 - constants
    return f"SELECT count(*) FROM (({rows} EXCEPT ALL {known}) UNION ALL ({known} EXCEPT ALL {rows})) AS differing"  # noqa: S608 - constants


_CHARGES = "sum(requests)::numeric, sum(greatest(cost_pico_usd, 0)), sum(-least(cost_pico_usd, 0))"
_TOTALS = f"""
    SELECT count(*) FROM (
        (SELECT {_CHARGES} FROM {_ROWS} AS part HAVING count(*) > 0)
        EXCEPT ALL
        (SELECT sum(requests), sum(charged), sum(credited) FROM (
            SELECT requests, charged_cost_pico_usd AS charged, credited_cost_pico_usd AS credited FROM usage_total
            UNION ALL SELECT requests, greatest(cost_pico_usd, 0), -least(cost_pico_usd, 0) FROM {_TAIL} AS tail) AS b)
    ) AS differing
"""  # noqa: S608 - constants

_HOUR = "date_trunc('hour', opened_at, 'UTC')"
DIFFERING = f"""
SELECT ({_differing("usage_hour", "hour", _HOUR)}), ({_differing("usage_session", "hour", _HOUR, ", session")}),
       ({_differing("usage_day", "day", "(opened_at AT TIME ZONE 'UTC')::date")}), ({_TOTALS})
"""


async def differing(connection: Connection | PoolProxy) -> tuple[int, ...]:
    """Return how many hours, sessions, days, totals differ from the ledger's rows, the tail added, in one snapshot."""
    row = await connection.fetchrow(DIFFERING)
    assert row is not None
    return tuple(row)


EXACT = (0, 0, 0, 0)


@dataclass(frozen=True)
class Owner:
    """Whose rows they are; every field has a random id unless it is given."""

    organization_id: UUID = field(default_factory=uuid4)
    team_id: UUID = field(default_factory=uuid4)
    user_id: UUID | None = None
    key_id: UUID = field(default_factory=uuid4)

    async def event(
        self,
        connection: Connection | PoolProxy,
        at: dt.datetime,
        *,
        model: str = "sim",
        engine: str | None = "e1",
        cost: int = 7,
        event_id: UUID | None = None,
        coverage: str = "exact",
        reaped: bool = False,
        session: str | None = "session",
    ) -> UUID:
        """Write one closed event of 100 prompt tokens (40 cached) and 10 completion tokens; return its id."""
        event_id = event_id or event_id_at(at)
        mine = (self.organization_id, self.team_id, self.user_id, self.key_id)
        await connection.execute(_EVENT, event_id, at, *mine, model, engine, cost, coverage, reaped, session)
        return event_id

    async def adjustment(
        self,
        connection: Connection | PoolProxy,
        event_id: UUID,
        at: dt.datetime,
        cost: int,
        *,
        model: str = "sim",
        tokens: int = 0,
        late_close: bool = False,
    ) -> None:
        """Write one adjustment of cost and prompt tokens to an event, by a rerate or by its late close."""
        batch, reason = (UUID(int=0), "late_close") if late_close else (uuid4(), "rerate")
        mine = (self.organization_id, self.team_id, self.user_id, self.key_id)
        await connection.execute(_ADJUSTMENT, event_id, at, batch, reason, *mine, model, tokens, cost)

    async def opening(
        self,
        connection: Connection | PoolProxy,
        at: dt.datetime,
        *,
        model: str = "sim",
        cost: int = 50,
        session: str | None = "session",
    ) -> UUID:
        """Write an OPEN that may cost at most `cost`, with half an hour to go; return its id."""
        event_id = event_id_at(at)
        mine = (self.organization_id, self.team_id, self.user_id, self.key_id)
        await connection.execute(_OPEN, event_id, at, *mine, model, cost, session)
        return event_id
