"""Tables of prices, replicas and the ledger: events, what corrects them, and what sums them up."""

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
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from gateway.storage.table_parts import TransactionId, created_at, metadata

model_price = Table(
    "model_price",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("model", Text, nullable=False),
    Column("effective_from", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    # Integer pico-USD per token (per request for the last): 0.20 USD per million tokens is 200000.
    Column("input_pico_usd", Numeric(38, 0), nullable=False),
    Column("cached_input_pico_usd", Numeric(38, 0), nullable=False),
    Column("output_pico_usd", Numeric(38, 0), nullable=False),
    Column("reasoning_pico_usd", Numeric(38, 0), nullable=False),
    Column("request_pico_usd", Numeric(38, 0), nullable=False, server_default=text("0")),
    Column("source", Text, nullable=False, server_default=text("'config'")),
    created_at(),
    UniqueConstraint("model", "effective_from"),
    CheckConstraint(
        "input_pico_usd >= 0 AND cached_input_pico_usd >= 0 AND output_pico_usd >= 0"
        " AND reasoning_pico_usd >= 0 AND request_pico_usd >= 0",
        name="rates",
    ),
)

replica = Table(
    "replica",
    metadata,
    Column("boot_id", UUID, primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("heartbeat_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

# The ledger: append-only, one partition a day, `opened_at` is the time inside the event id (UUIDv7). Ids only, no
# foreign keys: tenants are deleted, what they used is not.
usage_open = Table(
    "usage_open",
    metadata,
    Column("event_id", UUID, primary_key=True),
    Column("opened_at", DateTime(timezone=True), primary_key=True),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("boot_id", UUID, nullable=False),
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, nullable=False),
    Column("user_id", UUID),
    Column("key_id", UUID, nullable=False),
    Column("model", Text, nullable=False, comment="as requested, resolved to a name of penstock.yaml"),
    Column("estimate_prompt_tokens", BigInteger, nullable=False),
    Column("estimate_completion_tokens", BigInteger, nullable=False),
    Column("ingested_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("endpoint", Text),
    Column("streamed", Boolean),
    Column(
        "estimate_cost_pico_usd",
        Numeric(38, 0),
        nullable=False,
        server_default=text("0"),
        comment="the most that the request was expected to cost",
    ),
    Column("session", Text),
    Index("usage_open_organization_id_idx", "organization_id", "deadline_at"),
    Index(
        "usage_open_session_idx",
        "organization_id",
        "session",
        "deadline_at",
        postgresql_where=text("session IS NOT NULL"),
    ),
    Index("usage_open_ingested_at_idx", "ingested_at"),
    postgresql_partition_by="RANGE (opened_at)",
)

usage_event = Table(
    "usage_event",
    metadata,
    Column("event_id", UUID, primary_key=True),
    Column("opened_at", DateTime(timezone=True), primary_key=True),
    Column("boot_id", UUID, nullable=False),
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, nullable=False),
    Column("user_id", UUID),
    Column("key_id", UUID, nullable=False),
    Column("model", Text, nullable=False, comment="as requested, resolved to a name of penstock.yaml"),
    Column("served_model", Text, nullable=False, comment="whose price applies; differs after a fallback"),
    Column("engine", Text, comment="null: no engine was reached"),
    Column(
        "endpoint",
        Text,
        nullable=False,
        comment="chat.completions, completions, embeddings, messages, messages.count_tokens, responses",
    ),
    Column("session", Text),
    Column("streamed", Boolean, nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("units", JSONB, comment="what is not a token: images, seconds, cache writes"),
    Column("price_id", BigInteger, comment="null: the model had no price"),
    Column("cost_pico_usd", Numeric(38, 0), nullable=False),
    Column("status", Text, nullable=False),
    Column("coverage", Text, nullable=False),
    Column("http_status", SmallInteger),
    Column("error_code", Text),
    Column("ttft_ms", Integer, comment="null: nothing was sent"),
    Column("duration_ms", Integer, nullable=False),
    Column("ingested_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column(
        "reaped",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="closed for a replica that did not do it itself",
    ),
    Column(
        "ingest_xid",
        TransactionId,
        nullable=False,
        server_default=text("pg_current_xact_id()"),
        comment="the transaction that wrote the row",
    ),
    CheckConstraint("status IN ('ok', 'client_closed', 'upstream_error', 'interrupted')", name="status"),
    CheckConstraint("coverage IN ('exact', 'estimated')", name="coverage"),
    CheckConstraint(
        "prompt_tokens >= 0 AND cached_tokens >= 0 AND completion_tokens >= 0 AND reasoning_tokens >= 0"
        " AND cost_pico_usd >= 0",
        name="amounts",
    ),
    Index("usage_event_organization_id_idx", "organization_id", "opened_at"),
    Index("usage_event_ingested_at_idx", "ingested_at"),
    Index("usage_event_ingest_xid_idx", "ingest_xid"),
    postgresql_partition_by="RANGE (opened_at)",
)

# What is to be added to an event: events themselves never change.
usage_adjustment = Table(
    "usage_adjustment",
    metadata,
    Column("event_id", UUID, primary_key=True),
    Column("opened_at", DateTime(timezone=True), primary_key=True),
    Column(
        "batch_id",
        UUID,
        primary_key=True,
        comment="zero for a late close, else the run of a rerate: repeatable",
    ),
    Column("reason", Text, nullable=False),
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, nullable=False),
    Column("user_id", UUID),
    Column("key_id", UUID, nullable=False),
    Column("model", Text, nullable=False),
    Column("served_model", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("price_id", BigInteger),
    Column(
        "cost_pico_usd",
        Numeric(38, 0),
        nullable=False,
        comment="added to the event's own, as are tokens; may be negative",
    ),
    Column("ingested_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("ingest_xid", TransactionId, nullable=False, server_default=text("pg_current_xact_id()")),
    CheckConstraint("reason IN ('late_close', 'rerate')", name="reason"),
    Index("usage_adjustment_organization_id_idx", "organization_id", "opened_at"),
    Index("usage_adjustment_ingest_xid_idx", "ingest_xid"),
    postgresql_partition_by="RANGE (opened_at)",
)


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
        Column("requests", BigInteger, nullable=False),
        Column("estimated", BigInteger, nullable=False),
        Column("prompt_tokens", Numeric(38, 0), nullable=False),
        Column("cached_tokens", Numeric(38, 0), nullable=False),
        Column("completion_tokens", Numeric(38, 0), nullable=False),
        Column("reasoning_tokens", Numeric(38, 0), nullable=False),
        Column("cost_pico_usd", Numeric(38, 0), nullable=False),
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

replica_checkpoint = Table(
    "replica_checkpoint",
    metadata,
    Column("boot_id", UUID, primary_key=True),
    Column("taken_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("live", JSONB, nullable=False, comment="of each request in flight, what it has used so far"),
    Column("counters", JSONB, nullable=False, comment="what this replica has settled since its start"),
)

reaper_state = Table(
    "reaper_state",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "closed_before",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("'epoch'::timestamptz"),
        comment="what was opened and had come by then is closed",
    ),
    CheckConstraint("only_row", name="only_row"),
)
