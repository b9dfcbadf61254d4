"""Tables of tenants and of what they may do. Every row carries its organization, and composite foreign keys make a
reference across organizations impossible.
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
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, CIDR, UUID

from gateway.storage.table_parts import created_at, deleted_at, metadata, row_id

organization = Table(
    "organization",
    metadata,
    row_id(),
    Column("name", Text, nullable=False),
    created_at(),
    deleted_at(),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    Index("organization_name_idx", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

team = Table(
    "team",
    metadata,
    row_id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("name", Text, nullable=False),
    created_at(),
    deleted_at(),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    Index("team_name_idx", "organization_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

# "user" is a reserved word in SQL.
app_user = Table(
    "app_user",
    metadata,
    row_id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("name", Text, nullable=False),
    created_at(),
    deleted_at(),
    Column("role", Text, nullable=False, server_default=text("'member'")),
    Column("role_source", Text, nullable=False, server_default=text("'manual'")),
    Column("email", Text),
    Column("oidc_issuer", Text),
    Column("oidc_subject", Text),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    CheckConstraint("role IN ('member', 'organization_admin', 'platform_admin')", name="role"),
    CheckConstraint("role_source IN ('manual', 'oidc')", name="role_source"),
    CheckConstraint("(oidc_issuer IS NULL) = (oidc_subject IS NULL)", name="oidc"),
    Index(
        "app_user_oidc_idx",
        "oidc_issuer",
        "oidc_subject",
        unique=True,
        postgresql_where=text("deleted_at IS NULL AND oidc_subject IS NOT NULL"),
    ),
    Index("app_user_name_idx", "organization_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
)

membership = Table(
    "membership",
    metadata,
    Column("organization_id", UUID, nullable=False),
    Column("team_id", UUID, primary_key=True),
    Column("user_id", UUID, primary_key=True),
    Column("role", Text, nullable=False, server_default=text("'member'")),
    created_at(),
    Column("source", Text, nullable=False, server_default=text("'manual'")),
    ForeignKeyConstraint(["organization_id", "team_id"], ["team.organization_id", "team.id"]),
    ForeignKeyConstraint(["organization_id", "user_id"], ["app_user.organization_id", "app_user.id"]),
    CheckConstraint("role IN ('member', 'team_admin')", name="role"),
    CheckConstraint("source IN ('manual', 'oidc')", name="source"),
    Index("membership_user_id_idx", "user_id"),
)

api_key = Table(
    "api_key",
    metadata,
    row_id(),
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
    created_at(),
    Column("previous_secret_hmac", LargeBinary, comment="the secret before the last rotation"),
    Column("previous_pepper_version", SmallInteger),
    Column("previous_expires_at", DateTime(timezone=True), comment="until when the secret before counts, too"),
    Column("rotated_at", DateTime(timezone=True)),
    Column("addresses_allowed", ARRAY(CIDR), comment="from where it may be used; null: from anywhere"),
    UniqueConstraint("public_id"),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint(
        "num_nulls(previous_secret_hmac, previous_pepper_version, previous_expires_at) IN (0, 3)", name="previous"
    ),
    ForeignKeyConstraint(["organization_id", "team_id"], ["team.organization_id", "team.id"]),
    ForeignKeyConstraint(["organization_id", "user_id"], ["app_user.organization_id", "app_user.id"]),
    CheckConstraint("length(secret_hmac) = 32", name="secret_hmac"),
    Index("api_key_team_id_id_idx", "team_id", "id"),
    Index("api_key_user_id_id_idx", "user_id", "id"),
    Index("api_key_living_idx", "organization_id", "id", postgresql_where=text("revoked_at IS NULL")),
    Index("api_key_expires_at_idx", "organization_id", "expires_at", postgresql_where=text("revoked_at IS NULL")),
)

limit_rule = Table(
    "limit_rule",
    metadata,
    row_id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("level", Text, nullable=False),
    Column("subject_id", UUID, nullable=False, comment="id of the organization, team, user or key that is limited"),
    Column("model", Text, nullable=False, server_default=text("''"), comment="empty: every model"),
    Column("requests_per_minute", BigInteger),
    Column("requests_burst", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("tokens_burst", BigInteger),
    created_at(),
    Column("input_tokens_per_minute", BigInteger),
    Column("input_tokens_burst", BigInteger),
    Column("output_tokens_per_minute", BigInteger),
    Column("output_tokens_burst", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("output_tokens_max", BigInteger),
    Column("budget_day_pico_usd", Numeric(38, 0)),
    Column("budget_week_pico_usd", Numeric(38, 0)),
    Column("budget_month_pico_usd", Numeric(38, 0)),
    Column("budget_stops_streams", Boolean, nullable=False, server_default=text("false")),
    Column("budget_session_pico_usd", Numeric(38, 0)),
    UniqueConstraint("subject_id", "level", "model"),
    CheckConstraint("level IN ('organization', 'team', 'user', 'key')", name="level"),
    CheckConstraint(
        "requests_per_minute > 0 AND requests_burst > 0 AND tokens_per_minute > 0 AND tokens_burst > 0",
        name="positive",
    ),
    CheckConstraint(
        "input_tokens_per_minute > 0 AND input_tokens_burst > 0 AND output_tokens_per_minute > 0"
        " AND output_tokens_burst > 0 AND concurrent_requests > 0 AND output_tokens_max > 0"
        " AND budget_day_pico_usd >= 0 AND budget_week_pico_usd >= 0 AND budget_month_pico_usd >= 0",
        name="amounts",
    ),
    CheckConstraint("budget_session_pico_usd >= 0", name="budget_session"),
    Index("limit_rule_organization_id_id_idx", "organization_id", "id"),
)

admin_credential = Table(
    "admin_credential",
    metadata,
    row_id(),
    Column("public_id", Text, nullable=False),
    Column("secret_hmac", LargeBinary, nullable=False),
    Column("pepper_version", SmallInteger, nullable=False),
    Column("name", Text, nullable=False, server_default=text("''")),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    created_at(),
    Column("organization_id", UUID, ForeignKey("organization.id"), comment="null: the whole platform"),
    Column("user_id", UUID, comment="may do what this user may; null: all of the organization"),
    Column("source", Text, nullable=False, server_default=text("'manual'")),
    UniqueConstraint("public_id"),
    ForeignKeyConstraint(
        ["organization_id", "user_id"],
        ["app_user.organization_id", "app_user.id"],
        name="admin_credential_organization_id_user_id_fkey",
    ),
    CheckConstraint("length(secret_hmac) = 32", name="secret_hmac"),
    CheckConstraint("user_id IS NULL OR organization_id IS NOT NULL", name="reach"),
    CheckConstraint("source IN ('manual', 'oidc')", name="source"),
    Index("admin_credential_organization_id_idx", "organization_id"),
    Index("admin_credential_user_id_idx", "user_id"),
)
