"""A ledger of known contents: events, adjustments and prices written straight into Postgres, and their sums."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID

from gateway.settle.records import INSERT_CLOSE, INSERT_OPEN, CloseRecord
from tests.support.postgres import connected
from tests.support.records import close_record, event_id_at, open_record
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LATE_CLOSE = UUID(int=0)


def events_at(*moments: dt.datetime, **changes: Any) -> list[CloseRecord]:
    """Return the CLOSE record of an event opened at each of these moments; `changes` are fields."""
    return [close_record(open_record(event_id_at(moment)), **changes) for moment in moments]


def write_events(dsn: str, closes: Sequence[CloseRecord], *, reaped: bool = False) -> None:
    """Write events, each with its OPEN, and make the partitions that they need."""

    async def write() -> None:
        opens = [
            open_record(
                each.event_id,
                boot_id=each.boot_id,
                organization_id=each.organization_id,
                deadline_at=each.opened_at + dt.timedelta(minutes=30),
            )
            for each in closes
        ]
        async with connected(dsn) as connection, connection.transaction():
            for day in {each.opened_at.date() for each in closes}:
                await connection.execute("SELECT penstock_make_partitions($1, 1)", day)
            await connection.execute(INSERT_OPEN, *zip(*opens, strict=True))
            await connection.execute(INSERT_CLOSE, *zip(*closes, strict=True))
            if reaped:
                ids = [each.event_id for each in closes]
                await connection.execute("UPDATE usage_event SET reaped = true WHERE event_id = ANY($1)", ids)

    run_blocking(write())


def write_late_close(dsn: str, event: CloseRecord, *, tokens: tuple[int, int, int, int], cost: int) -> None:
    """Write what a late close adds to an event: prompt, cached, completion and reasoning tokens, and the cost."""
    execute(
        dsn,
        """
        INSERT INTO usage_adjustment (event_id, opened_at, batch_id, reason, organization_id, team_id, user_id, key_id,
            model, served_model, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost_pico_usd)
        SELECT event_id, opened_at, $2, 'late_close', organization_id, team_id, user_id, key_id, model, served_model,
            $3, $4, $5, $6, $7::numeric
        FROM usage_event WHERE event_id = $1
        """,
        event.event_id,
        LATE_CLOSE,
        *tokens,
        cost,
    )


def set_rates(dsn: str, model: str, since: dt.datetime, *rates: int) -> None:
    """Set a price by hand: pico-USD per token for input, cached input, output, reasoning, and per request."""
    execute(
        dsn,
        "INSERT INTO model_price (model, effective_from, source, input_pico_usd, cached_input_pico_usd,"
        " output_pico_usd, reasoning_pico_usd, request_pico_usd)"
        " VALUES ($1, $2, 'admin', $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint)",
        model,
        since,
        *rates,
    )


def costs(dsn: str) -> Mapping[UUID, int]:
    """Return what each event costs with its adjustments, in pico-USD."""
    found = rows(
        dsn,
        """
        SELECT event_id, sum(cost_pico_usd) AS cost FROM (
            SELECT event_id, cost_pico_usd FROM usage_event
            UNION ALL SELECT event_id, cost_pico_usd FROM usage_adjustment
        ) AS part GROUP BY 1
        """,
    )
    return {row["event_id"]: int(row["cost"]) for row in found}


def rows(dsn: str, statement: str, *arguments: object) -> list[dict[str, Any]]:
    """Return what a statement answers."""

    async def fetch() -> list[dict[str, Any]]:
        async with connected(dsn) as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]

    return run_blocking(fetch())


def execute(dsn: str, statement: str, *arguments: object) -> None:
    """Run a statement."""
    rows(dsn, statement, *arguments)
