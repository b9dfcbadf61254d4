"""Rollups of the ledger: what was used, summed up by hour, day and session, and in all."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Identity,
    Index,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from gateway.storage.table_parts import TransactionId, metadata, sums_of_use


def _sums() -> list[Column[object]]:
    """What a rollup has a row for, and what it sums up: events with their adjustments."""
    return [
        Column("organization_id", UUID, nullable=False),
        Column("team_id", UUID, nullable=False),
        Column("user_id", UUID),
        Column("key_id", UUID, nullable=False),
        Column("model", Text, nullable=False),
        Column("served_model", Text, nullable=False),
        Column("engine", Text),
        *sums_of_use(),
    ]


def _one_row_each(name: str, *cut: str) -> Index:
    """Return the index that lets sums be added to the one row that they belong to."""
    what = ("key_id", "team_id", "user_id", "model", "served_model", "engine")
    return Index(name, "organization_id", *cut, *what, unique=True, postgresql_nulls_not_distinct=True)


usage_hour = Table(
    "usage_hour",
    metadata,
    Column("hour", DateTime(timezone=True), nullable=False),
    *_sums(),
    Index("usage_hour_hour_idx", "hour"),
    _one_row_each("usage_hour_key", "hour"),
)

usage_day = Table(
    "usage_day",
    metadata,
    Column("day", Date, nullable=False),
    *_sums(),
    Index("usage_day_day_idx", "day"),
    _one_row_each("usage_day_key", "day"),
)

# What `usage_hour` has, cut by session: also under no session, so that both have the same sums.
usage_session = Table(
    "usage_session",
    metadata,
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("session", Text, comment="at most 128 characters; null: requests that told none"),
    Column(
        "opened_first",
        DateTime(timezone=True),
        comment="when its first request of the hour came; null without a session",
    ),
    Column("opened_last", DateTime(timezone=True)),
    *_sums(),
    Index("usage_session_hour_idx", "hour"),
    Index("usage_session_organization_id_idx", "organization_id", "hour"),
    _one_row_each("usage_session_key", "session", "hour"),
)


def _amounts(prefix: str) -> list[Column[object]]:
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    return [Column(f"{prefix}_{name}", Numeric(38, 0), nullable=False) for name in names]


# All that was ever used, whatever of the ledger is still kept: what counters in Prometheus are read from.
usage_total = Table(
    "usage_total",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, nullable=False),
    Column("served_model", Text, nullable=False),
    Column("requests", Numeric(38, 0), nullable=False),
    *_amounts("charged"),
    Column("charged_cost_pico_usd", Numeric(38, 0), nullable=False),
    *_amounts("credited"),
    Column(
        "credited_cost_pico_usd",
        Numeric(38, 0),
        nullable=False,
        comment="taken back by adjustments: what is due is charged - credited",
    ),
    UniqueConstraint("organization_id", "team_id", "served_model"),
)

rollup_state = Table(
    "rollup_state",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "watermark",
        TransactionId,
        nullable=False,
        server_default=text("'0'::xid8"),
        comment="rows of transactions below it are in the rollups, others are not",
    ),
    Column("rolled_up_at", DateTime(timezone=True)),
    Column("retired_before", Date, comment="events of earlier days are gone: their hours stay as they are"),
    Column("hours_retired_before", Date, comment="of earlier days there are no hours any more"),
    CheckConstraint("only_row", name="only_row"),
)
