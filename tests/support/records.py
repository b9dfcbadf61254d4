"""The ledger's records, and what Postgres holds of them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from gateway.settle.records import CloseRecord, OpenRecord
from gateway.units import PicoUsd, new_event_id, opened_at
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import Sequence

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def event_id_at(at: dt.datetime) -> UUID:
    """Return an event id as it is made at a moment."""
    ms = (at - EPOCH) // dt.timedelta(milliseconds=1)
    return UUID(int=(ms << 80) | (new_event_id().int & ((1 << 80) - 1)))


def open_record(event_id: UUID | None = None, **changes: Any) -> OpenRecord:
    """Return an OPEN record; `changes` are fields."""
    event_id = event_id or new_event_id()
    opened = opened_at(event_id)
    record = OpenRecord(
        event_id=event_id,
        opened_at=opened,
        deadline_at=opened + dt.timedelta(minutes=30),
        boot_id=uuid4(),
        organization_id=uuid4(),
        team_id=uuid4(),
        user_id=uuid4(),
        key_id=uuid4(),
        model="m",
        estimate_prompt_tokens=100,
        estimate_completion_tokens=50,
        endpoint="chat.completions",
        streamed=True,
        estimate_cost_pico_usd=PicoUsd(10**30 + 2),
        session="ses_1",
    )
    return record._replace(**changes)


def close_record(opened: OpenRecord, **changes: Any) -> CloseRecord:
    """Return the CLOSE record of an event; `changes` are fields."""
    record = CloseRecord(
        event_id=opened.event_id,
        opened_at=opened.opened_at,
        boot_id=opened.boot_id,
        organization_id=opened.organization_id,
        team_id=opened.team_id,
        user_id=opened.user_id,
        key_id=opened.key_id,
        model=opened.model,
        served_model="served",
        engine="http://engine",
        endpoint="chat.completions",
        session="ses_1",
        streamed=True,
        attempts=2,
        prompt_tokens=90,
        cached_tokens=40,
        completion_tokens=7,
        reasoning_tokens=3,
        price_id=1,
        cost_pico_usd=PicoUsd(10**30 + 1),
        status="ok",
        coverage="exact",
        http_status=200,
        error_code=None,
        ttft_ms=12,
        duration_ms=345,
    )
    return record._replace(**changes)


async def written_opens(dsn: str, ids: Sequence[UUID] | None = None) -> dict[UUID, OpenRecord]:
    """Return what is in `usage_open`, of these events or of all."""
    return {row["event_id"]: OpenRecord(**row) for row in await _rows(dsn, "usage_open", OpenRecord._fields, ids)}


async def written_closes(dsn: str, ids: Sequence[UUID] | None = None) -> dict[UUID, CloseRecord]:
    """Return what is in `usage_event`, of these events or of all."""
    return {row["event_id"]: CloseRecord(**row) for row in await _rows(dsn, "usage_event", CloseRecord._fields, ids)}


async def _rows(dsn: str, table: str, fields: Sequence[str], ids: Sequence[UUID] | None) -> list[dict[str, Any]]:
    columns = ", ".join(fields)
    statement = f"SELECT {columns} FROM {table} WHERE $1::uuid[] IS NULL OR event_id = ANY($1)"  # noqa: S608 - names of this module
    async with connected(dsn) as connection:
        return [dict(row) for row in await connection.fetch(statement, ids)]
