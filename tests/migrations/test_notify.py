"""Whoever writes identity, limits or prices, with whatever tool, every replica hears which thing to verify again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.admin.limit_values import COLUMNS
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

HEARD_S_MAX = 5.0

# One row of everything, in the order that foreign keys want: how it is made, changed and deleted.
CHANGES = {
    "organization": (
        "INSERT INTO organization (name) VALUES ('acme')",
        "UPDATE organization SET deleted_at = now()",
        "DELETE FROM organization",
    ),
    "team": (
        "INSERT INTO team (organization_id, name) SELECT id, 'core' FROM organization",
        "UPDATE team SET deleted_at = now()",
        "DELETE FROM team",
    ),
    "app_user": (
        "INSERT INTO app_user (organization_id, name) SELECT id, 'bob' FROM organization",
        "UPDATE app_user SET deleted_at = now()",
        "DELETE FROM app_user",
    ),
    "membership": (
        (
            "INSERT INTO membership (organization_id, team_id, user_id)"
            " SELECT organization_id, team.id, app_user.id FROM team JOIN app_user USING (organization_id)"
        ),
        "UPDATE membership SET role = 'team_admin'",
        "DELETE FROM membership",
    ),
    "api_key": (
        (
            "INSERT INTO api_key (organization_id, team_id, public_id, secret_hmac, pepper_version)"
            " SELECT organization_id, id, 'key-1', decode(repeat('00', 32), 'hex'), 0 FROM team"
        ),
        "UPDATE api_key SET revoked_at = now()",
        "DELETE FROM api_key",
    ),
    "limit_rule": (
        (
            "INSERT INTO limit_rule (organization_id, level, subject_id, tokens_per_minute)"
            " SELECT organization_id, 'team', id, 10 FROM team"
        ),
        "UPDATE limit_rule SET tokens_per_minute = 20",
        "DELETE FROM limit_rule",
    ),
    "model_price": (
        (
            "INSERT INTO model_price (model, input_pico_usd, cached_input_pico_usd, output_pico_usd,"
            " reasoning_pico_usd) VALUES ('m', 1, 1, 1, 1)"
        ),
        "UPDATE model_price SET input_pico_usd = 2",
        "DELETE FROM model_price",
    ),
}
PAYLOADS = {"api_key": "key key-1", "model_price": "prices"}
NOT_REMEMBERED = {"admin_credential", "replica", "replica_checkpoint", "alembic_version"} | {
    "usage_event", "usage_open", "usage_adjustment", "usage_hour", "usage_day", "usage_session", "usage_total",
    "rollup_state", "reaper_state", "reconcile_baseline", "audit_event", "idempotency_record", "statement",
    "statement_line", "statement_state", "webhook", "webhook_secret", "webhook_event", "webhook_delivery",
    "webhook_health", "webhook_watch", "webhook_budget_change"
}  # fmt: skip
TRIGGERED = """
SELECT relname, EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = 'penstock_notify')
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Listen on the replicas' channel; what is yielded waits for the next message and returns it."""
    heard: asyncio.Queue[object] = asyncio.Queue(maxsize=1000)
    async with connected(dsn) as connection:
        await connection.add_listener("penstock", lambda *message: heard.put_nowait(message[-1]))
        yield lambda: asyncio.wait_for(heard.get(), HEARD_S_MAX)


@pytest.mark.parametrize("table", CHANGES)
async def test_every_change_of_a_row_is_told(postgres_dsn: str, table: str) -> None:
    names = list(CHANGES)
    async with connected(postgres_dsn) as writer:
        for needed in names[: names.index(table)]:
            await writer.execute(CHANGES[needed][0])
        async with listening(postgres_dsn) as next_message:
            for number, change in enumerate(CHANGES[table]):
                await writer.execute(change)
                if number == 0:
                    organization = await writer.fetchval("SELECT id FROM organization")
                assert await next_message() == PAYLOADS.get(table, f"organization {organization}")


async def test_every_value_of_a_limit_is_told(postgres_dsn: str) -> None:
    async with connected(postgres_dsn) as writer:
        for made in ("organization", "team", "limit_rule"):
            await writer.execute(CHANGES[made][0])
        organization = await writer.fetchval("SELECT id FROM organization")
        async with listening(postgres_dsn) as next_message:
            for column in COLUMNS:
                value = "true" if column == "budget_stops_streams" else "5"
                await writer.execute(f"UPDATE limit_rule SET {column} = {value}")  # noqa: S608 - names of the table itself
                assert await next_message() == f"organization {organization}", column


async def test_a_change_that_is_taken_back_is_not_told(postgres_dsn: str) -> None:
    async with connected(postgres_dsn) as writer, listening(postgres_dsn) as next_message:
        await writer.execute("BEGIN")
        await writer.execute(CHANGES["organization"][0])
        await writer.execute("ROLLBACK")
        await writer.execute(CHANGES["model_price"][0])
        assert await next_message() == "prices"


async def test_every_row_of_one_statement_is_told(postgres_dsn: str) -> None:
    async with connected(postgres_dsn) as writer, listening(postgres_dsn) as next_message:
        await writer.execute("INSERT INTO organization (name) SELECT 'org-' || n FROM generate_series(1, 5) AS n")
        ids = {row[0] for row in await writer.fetch("SELECT id FROM organization")}
        assert {await next_message() for _ in ids} == {f"organization {each}" for each in ids}


async def test_every_table_that_replicas_remember_has_a_trigger(postgres_dsn: str) -> None:
    """Also one that a later migration adds: it is in one of the two lists."""
    async with connected(postgres_dsn) as connection:
        tables = await connection.fetch(TRIGGERED)
    assert {name for name, told in tables if told} == set(CHANGES)
    assert {name for name, told in tables if not told} == NOT_REMEMBERED
