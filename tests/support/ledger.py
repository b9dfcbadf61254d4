"""Ledger events: written straight into Postgres for tests of what reads them, and read from there as they are."""

from __future__ import annotations

import secrets
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from gateway.units import PICO_USD_PER_USD, event_ids_between
from tests.support.servers import run_blocking
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from gateway.admin.database import Database
    from gateway.admin.keys import ApiKey
    from tests.support.tenants import Tenant

ASK_S_MAX = 30.0


def event_id_at(at: dt.datetime) -> UUID:
    """Return a new id of an event that was opened `at`: ids hold that time."""
    return UUID(int=event_ids_between(at, at)[0].int | secrets.randbits(80))


async def write_usage(
    db: Database,
    key: ApiKey,
    at: dt.datetime,
    *,
    model: str = "qwen-coder",
    tokens: tuple[int, int, int] = (100, 40, 10),
    cost_pico_usd: int = 1,
    coverage: str = "exact",
) -> UUID:
    """Write one closed event of `key`, opened `at`; `tokens` are prompt, cached and completion. Return its id."""
    event_id = event_id_at(at)
    await db.execute(
        """
        INSERT INTO usage_event (event_id, opened_at, boot_id, organization_id, team_id, user_id, key_id, model,
            served_model, endpoint, streamed, attempts, prompt_tokens, cached_tokens, completion_tokens,
            reasoning_tokens, cost_pico_usd, status, coverage, duration_ms)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 'chat.completions', true, 1, $9, $10, $11, 0, $12, 'ok', $13, 5)
        """,
        event_id,
        at,
        uuid4(),
        key.organization_id,
        key.team_id,
        key.user_id,
        key.id,
        model,
        *tokens,
        cost_pico_usd,
        coverage,
    )
    return event_id


def closed_events(dsn: str, tenant: Tenant) -> list[dict[str, Any]]:
    """Return a tenant's rows of `usage_event`, oldest first."""
    return rows_of(
        dsn, "SELECT * FROM usage_event WHERE organization_id = $1 ORDER BY event_id", tenant.organization_id
    )


def opened_events(dsn: str, tenant: Tenant) -> list[dict[str, Any]]:
    """Return a tenant's rows of `usage_open`, oldest first."""
    return rows_of(dsn, "SELECT * FROM usage_open WHERE organization_id = $1 ORDER BY event_id", tenant.organization_id)


def both_events(dsn: str, tenant: Tenant) -> list[tuple[UUID, dict[str, Any] | None]]:
    """Return the id of each opened event of a tenant, oldest first, with its row of `usage_event` once it is closed."""
    rows = rows_of(
        dsn,
        """
        SELECT opened.event_id AS opened_id, closed.*
        FROM usage_open AS opened LEFT JOIN usage_event AS closed USING (event_id, opened_at)
        WHERE opened.organization_id = $1 ORDER BY opened.event_id
        """,
        tenant.organization_id,
    )
    return [(row.pop("opened_id"), row if row["status"] else None) for row in rows]


def closed_event(dsn: str, request_id: str) -> dict[str, Any]:
    """Wait for the row of `usage_event` that a request ends in, and return it."""
    event_id = UUID(request_id)
    rows = wait_for(
        lambda: rows_of(dsn, "SELECT * FROM usage_event WHERE event_id = $1", event_id), f"event {request_id} is closed"
    )
    assert len(rows) == 1
    return rows[0]


def all_closed(dsn: str, tenant: Tenant, count: int) -> list[dict[str, Any]]:
    """Wait until a tenant has `count` closed events and none that is open, and return them."""

    def settled() -> list[dict[str, Any]]:
        closed = closed_events(dsn, tenant)
        opened = opened_events(dsn, tenant)
        ids = {row["event_id"] for row in closed}
        done = len(closed) >= count and all(row["event_id"] in ids for row in opened)
        return closed if done else []

    closed = wait_for(settled, f"{count} events of {tenant.organization} are closed")
    assert len(closed) == count
    return closed


def cost_at(price: Mapping[str, str], row: Mapping[str, Any]) -> int:
    """Return what a row's tokens cost in pico-USD, by exact fractions, at a price as penstock.yaml states it."""
    rate = {name: Fraction(text) / 1_000_000 for name, text in price.items()}
    usd = (
        (row["prompt_tokens"] - row["cached_tokens"]) * rate["input"]
        + row["cached_tokens"] * rate["cached_input"]
        + (row["completion_tokens"] - row["reasoning_tokens"]) * rate["output"]
        + row["reasoning_tokens"] * rate["reasoning"]
        + Fraction(price.get("request", "0"))
    )
    amount = usd * PICO_USD_PER_USD
    assert amount.denominator == 1, "no rate is finer than the unit of money"
    return int(amount)


def rows_of(dsn: str, statement: str, *arguments: object) -> list[dict[str, Any]]:
    """Run one query and return its rows."""

    async def fetch() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(dsn, timeout=ASK_S_MAX)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    return run_blocking(fetch())
