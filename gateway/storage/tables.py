"""The schema of Postgres as SQLAlchemy tables: the reference that migrations are held against.

The data path never goes through SQLAlchemy; it reads and writes these tables with asyncpg and plain SQL. Every tenant
row carries its organization, and composite foreign keys make a reference across organizations impossible.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _id() -> Column[object]:
    return Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()"))


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _deleted_at() -> Column[object]:
    return Column("deleted_at", DateTime(timezone=True))


organization = Table(
    "organization",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    _created_at(),
    _deleted_at(),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    Index("organization_name_idx", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

team = Table(
    "team",
    metadata,
    _id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("name", Text, nullable=False),
    _created_at(),
    _deleted_at(),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    Index("team_name_idx", "organization_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

# "user" is a reserved word in SQL.
app_user = Table(
    "app_user",
    metadata,
    _id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("name", Text, nullable=False),
    _created_at(),
    _deleted_at(),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    Index("app_user_name_idx", "organization_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

membership = Table(
    "membership",
    metadata,
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, primary_key=True),
    Column("user_id", UUID, primary_key=True),
    Column("role", Text, nullable=False, server_default=text("'member'")),
    _created_at(),
    ForeignKeyConstraint(["organization_id", "team_id"], ["team.organization_id", "team.id"]),
    ForeignKeyConstraint(["organization_id", "user_id"], ["app_user.organization_id", "app_user.id"]),
    CheckConstraint("role IN ('member', 'team_admin')", name="role"),
    Index("membership_user_id_idx", "user_id"),
)

api_key = Table(
    "api_key",
    metadata,
    _id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("team_id", UUID, nullable=False),
    Column("user_id", UUID, comment="null: a service key of the team"),
    Column("public_id", Text, nullable=False, comment="the part of the key that names it; not secret"),
    Column("secret_hmac", LargeBinary, nullable=False, comment="HMAC-SHA-256 of the secret; the key is not kept"),
    Column("pepper_version", SmallInteger, nullable=False),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("models_allowed", ARRAY(Text), comment="names of penstock.yaml; null: all"),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    _created_at(),
    UniqueConstraint("public_id"),
    UniqueConstraint("organization_id", "id"),
    ForeignKeyConstraint(["organization_id", "team_id"], ["team.organization_id", "team.id"]),
    ForeignKeyConstraint(["organization_id", "user_id"], ["app_user.organization_id", "app_user.id"]),
    CheckConstraint("length(secret_hmac) = 32", name="secret_hmac"),
    Index("api_key_team_id_idx", "team_id"),
    Index("api_key_user_id_idx", "user_id"),
)

limit_rule = Table(
    "limit_rule",
    metadata,
    _id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("level", Text, nullable=False),
    Column("subject_id", UUID, nullable=False, comment="id of the organization, team, user or key that is limited"),
    Column("model", Text, nullable=False, server_default=text("''"), comment="empty: every model"),
    Column("requests_per_minute", BigInteger),
    Column("requests_burst", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("tokens_burst", BigInteger),
    _created_at(),
    UniqueConstraint("subject_id", "level", "model"),
    CheckConstraint("level IN ('organization', 'team', 'user', 'key')", name="level"),
    CheckConstraint(
        "requests_per_minute > 0 AND requests_burst > 0 AND tokens_per_minute > 0 AND tokens_burst > 0",
        name="positive",
    ),
    Index("limit_rule_organization_id_idx", "organization_id"),
)

admin_credential = Table(
    "admin_credential",
    metadata,
    _id(),
    Column("public_id", Text, nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("pepper_version", SmallInteger, nullable=False),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    _created_at(),
    UniqueConstraint("public_id"),
    CheckConstraint("length(secret_hmac) = 32", name="secret_hmac"),
)

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
    _created_at(),
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
    CheckConstraint("status IN ('ok', 'client_closed', 'upstream_error', 'interrupted')", name="status"),
    CheckConstraint("coverage IN ('exact', 'estimated')", name="coverage"),
    CheckConstraint(
        "prompt_tokens >= 0 AND cached_tokens >= 0 AND completion_tokens >= 0 AND reasoning_tokens >= 0"
        " AND cost_pico_usd >= 0",
        name="amounts",
    ),
    Index("usage_event_organization_id_idx", "organization_id", "opened_at"),
    Index("usage_event_ingested_at_idx", "ingested_at"),
    postgresql_partition_by="RANGE (opened_at)",
)
