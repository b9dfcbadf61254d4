"""The ledger as lines to bill by: one for each event and one for each adjustment, in the order of their ingestion.

A line never changes and has an id of its own, so a line that was billed is known again; a correction is a later line.
An export ends below the oldest transaction that still writes: nothing can come later that belongs before its end, so
the next export begins exactly there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import InvalidRequest
from gateway.units import PicoUsd

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator
    from uuid import UUID

    import asyncpg

    from gateway.admin.database import Database

BATCH_LINES = 2000
"""Lines that are in memory at a time."""

FETCH_S_MAX = 3600.0
"""How long Postgres may take until the first line: it sorts them all."""

XID_MAX = 2**63

# The event's own columns stand on an adjustment's line too, where the adjustment has them.
_LINES = """
    SELECT event_id, NULL::uuid AS batch_id, 'event' AS kind, ingest_xid, opened_at, ingested_at, organization_id,
        team_id, user_id, key_id, model, served_model, engine, endpoint, status, coverage, prompt_tokens, cached_tokens,
        completion_tokens, reasoning_tokens, price_id, cost_pico_usd
    FROM usage_event
    WHERE ingest_xid >= $1::text::xid8 AND ingest_xid < $2::text::xid8 AND ($3::uuid IS NULL OR organization_id = $3)
        AND ($4::timestamptz IS NULL OR opened_at >= $4) AND ($5::timestamptz IS NULL OR opened_at < $5)
    UNION ALL
    SELECT event_id, batch_id, reason, ingest_xid, opened_at, ingested_at, organization_id,
        team_id, user_id, key_id, model, served_model, NULL, NULL, NULL, NULL, prompt_tokens, cached_tokens,
        completion_tokens, reasoning_tokens, price_id, cost_pico_usd
    FROM usage_adjustment
    WHERE ingest_xid >= $1::text::xid8 AND ingest_xid < $2::text::xid8 AND ($3::uuid IS NULL OR organization_id = $3)
        AND ($4::timestamptz IS NULL OR opened_at >= $4) AND ($5::timestamptz IS NULL OR opened_at < $5)
    ORDER BY ingest_xid, event_id, batch_id NULLS FIRST
"""


class Line(NamedTuple):
    """One line; the fields are the columns of an export, in this order. Ids, tokens and money of one entry.

    `kind` is `event`, `late_close` or `rerate`; what the last two hold is to be added to their event, and may be
    negative. `prompt_tokens` include `cached_tokens`, `completion_tokens` include `reasoning_tokens`.
    """

    line_id: str
    kind: str
    event_id: str
    opened_at: dt.datetime
    ingested_at: dt.datetime
    organization_id: str
    team_id: str
    user_id: str | None
    key_id: str
    model: str
    served_model: str
    engine: str | None
    endpoint: str | None
    status: str | None
    coverage: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    price_id: int | None
    cost_pico_usd: PicoUsd


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines: of one organization or of all (None), opened in a time (None: any), after the end of an export."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    organization_id: UUID | None = None
    after: int = 0


def parse_cursor(text: str | None) -> int:
    """Return where an export ended, as its `next_after` tells. Raises InvalidRequest; None is the beginning."""
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or int(text[:20]) >= XID_MAX or len(text) > len(str(XID_MAX)):
        raise InvalidRequest("after must be the cursor that an export ended with, a whole number", param="after")
    return int(text)


async def end_of_export(db: Database, selection: Selection) -> int:
    """Return where an export that is read in this very transaction ends, which is where the next one begins.

    Raises InvalidRequest when the selection begins after that: its cursor is of another database.
    """
    end = int(await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
    if selection.after > end:
        raise InvalidRequest(
            "after is a cursor of another server: a ledger that was restored is exported once more from its beginning,"
            " and every line has the id that it had",
            param="after",
        )
    return end


async def lines(db: Database, selection: Selection, end: int) -> AsyncIterator[list[Line]]:
    """Yield the lines before `end`, some at a time, in the transaction (of one snapshot) that `end` was read in."""
    batch: list[Line] = []
    cursor = db.cursor(
        _LINES,
        str(selection.after),
        str(end),
        selection.organization_id,
        selection.since,
        selection.until,
        prefetch=BATCH_LINES,
        timeout=FETCH_S_MAX,
    )
    async for row in cursor:
        batch.append(_line(row))
        if len(batch) == BATCH_LINES:
            yield batch
            batch = []
    yield batch


def _line(row: asyncpg.Record) -> Line:
    event_id, batch_id, user_id = str(row["event_id"]), row["batch_id"], row["user_id"]
    return Line(
        line_id=event_id if batch_id is None else f"{event_id}:{batch_id}",
        kind=row["kind"],
        event_id=event_id,
        opened_at=row["opened_at"],
        ingested_at=row["ingested_at"],
        organization_id=str(row["organization_id"]),
        team_id=str(row["team_id"]),
        user_id=None if user_id is None else str(user_id),
        key_id=str(row["key_id"]),
        model=row["model"],
        served_model=row["served_model"],
        engine=row["engine"],
        endpoint=row["endpoint"],
        status=row["status"],
        coverage=row["coverage"],
        prompt_tokens=row["prompt_tokens"],
        cached_tokens=row["cached_tokens"],
        completion_tokens=row["completion_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        price_id=row["price_id"],
        cost_pico_usd=PicoUsd(int(row["cost_pico_usd"])),
    )
