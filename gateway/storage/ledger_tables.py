"""Tables of prices, replicas and the ledger: events, what corrects them, and how far each duty has come."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
