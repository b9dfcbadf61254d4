"""The ledger's two records, as rows: OPEN when a request is admitted, CLOSE when it has ended, however it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import datetime as dt
    from uuid import UUID

    from gateway.units import PicoUsd


class OpenRecord(NamedTuple):
    """A request that was admitted; the fields are the columns of `usage_open`, in this order.

    A field that is added needs a default, here as in `CloseRecord`: spools of the release before are read without it.
    """

    event_id: UUID
    opened_at: dt.datetime
    deadline_at: dt.datetime
    boot_id: UUID
    organization_id: UUID
    team_id: UUID
    user_id: UUID | None
    key_id: UUID
    model: str
    estimate_prompt_tokens: int
    estimate_completion_tokens: int
    endpoint: str
    streamed: bool
    estimate_cost_pico_usd: PicoUsd
    session: str | None = None


class CloseRecord(NamedTuple):
    """How a request ended; the fields are the columns of `usage_event`, in this order. Times are milliseconds."""

    event_id: UUID
    opened_at: dt.datetime
    boot_id: UUID
    organization_id: UUID
    team_id: UUID
    user_id: UUID | None
    key_id: UUID
    model: str
    served_model: str
    engine: str | None
    endpoint: str
    session: str | None
    streamed: bool
    attempts: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    price_id: int | None
    cost_pico_usd: PicoUsd
    status: str
    coverage: str
    http_status: int | None
    error_code: str | None
    ttft_ms: int | None
    duration_ms: int


OPEN_TYPES = (
    "uuid", "timestamptz", "timestamptz", "uuid", "uuid", "uuid", "uuid", "uuid", "text", "bigint", "bigint", "text",
    "bool", "numeric", "text",
)  # fmt: skip
CLOSE_TYPES = (
    "uuid", "timestamptz", "uuid", "uuid", "uuid", "uuid", "uuid", "text", "text", "text", "text", "text", "bool",
    "smallint", "bigint", "bigint", "bigint", "bigint", "bigint", "numeric", "text", "text", "smallint", "text",
    "integer", "integer",
)  # fmt: skip


def _insert(table: str, fields: tuple[str, ...], types: tuple[str, ...], *, first: int = 1) -> str:
    columns = ", ".join(fields)
    arrays = ", ".join(f"${position}::{kind}[]" for position, kind in enumerate(types, first))
    # Table and columns are names of this module. A record that is there already is the same record: writing is
    # idempotent, so a commit whose answer was lost is simply written again.
    return f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"  # noqa: S608 - see above


INSERT_OPEN = _insert("usage_open", OpenRecord._fields, OPEN_TYPES)
INSERT_CLOSE = _insert("usage_event", CloseRecord._fields, CLOSE_TYPES)


def _both() -> str:
    closes = _insert("usage_event", CloseRecord._fields, CLOSE_TYPES, first=len(OPEN_TYPES) + 1)
    return f"WITH opened AS ({INSERT_OPEN}) {closes}"


INSERT_BOTH = _both()
"""Both in one statement, so in one transaction and one round trip: the columns of OPEN, then those of CLOSE."""


def _insert_reaped() -> str:
    columns = ", ".join(CloseRecord._fields)
    arrays = ", ".join(f"${position}::{kind}[]" for position, kind in enumerate(CLOSE_TYPES, 1))
    return (
        f"INSERT INTO usage_event ({columns}, reaped) "  # noqa: S608 - names of this module
        f"SELECT closed.*, true FROM unnest({arrays}) AS closed ON CONFLICT DO NOTHING"
    )


INSERT_REAPED = _insert_reaped()
"""The columns of CLOSE, of events that are closed in their replica's place; one that is closed already stays so."""
