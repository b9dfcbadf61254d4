"""Tables of webhooks: whom to tell of what (`webhook`), what there is to tell, and how far each is told."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from gateway.storage.table_parts import TransactionId, created_at, metadata, row_id

webhook = Table(
    "webhook",
    metadata,
    row_id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), comment="null: hears of every organization"),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    created_at(),
    Column("secret_rotated_at", DateTime(timezone=True)),
    Column("disabled_at", DateTime(timezone=True)),
    Column("disabled_reason", Text),
    CheckConstraint("url <> '' AND length(url) <= 2000", name="url"),
    CheckConstraint("cardinality(events) BETWEEN 1 AND 20", name="events"),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled"),
    Index("webhook_organization_id_idx", "organization_id"),
)

webhook_secret = Table(
    "webhook_secret",
    metadata,
    Column("webhook_id", UUID, ForeignKey("webhook.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "secret_nonce",
        LargeBinary,
        primary_key=True,
        comment="the secret is an HMAC of it under the pepper; it is not kept",
    ),
    Column("pepper_version", SmallInteger, nullable=False),
    created_at(),
    Column(
        "expires_at", DateTime(timezone=True), comment="until when it signs beside its successor; null: the current one"
    ),
    CheckConstraint("length(secret_nonce) = 32", name="secret_nonce"),
)

webhook_health = Table(
    "webhook_health",
    metadata,
    Column("webhook_id", UUID, ForeignKey("webhook.id", ondelete="CASCADE"), primary_key=True),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="attempts in a row that failed"),
    Column("failing_since", DateTime(timezone=True)),
    Column("resume_at", DateTime(timezone=True), comment="nothing is sent there before"),
)

webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("organization_id", UUID, ForeignKey("organization.id")),
    Column("kind", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("once", Text, nullable=False, comment="what is noticed by several is told once under this name"),
    created_at(),
    UniqueConstraint("once"),
    Index("webhook_event_organization_id_idx", "organization_id"),
    Index("webhook_event_created_at_idx", "created_at"),
)

_WAITING = text("next_attempt_at IS NOT NULL")

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("event_id", UUID, ForeignKey("webhook_event.id", ondelete="CASCADE"), primary_key=True),
    Column("webhook_id", UUID, ForeignKey("webhook.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "created_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("now()"),
        comment="when it was last put into the queue",
    ),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", DateTime(timezone=True), server_default=text("now()")),
    Column("delivered_at", DateTime(timezone=True)),
    Column("given_up_at", DateTime(timezone=True)),
    Column("last_status", SmallInteger),
    Column("last_error", Text),
    CheckConstraint("num_nonnulls(next_attempt_at, delivered_at, given_up_at) = 1", name="state"),
    Index("webhook_delivery_due_idx", "webhook_id", "next_attempt_at", postgresql_where=_WAITING),
    Index("webhook_delivery_next_attempt_at_idx", "next_attempt_at", postgresql_where=_WAITING),
    Index("webhook_delivery_webhook_id_idx", "webhook_id", "event_id"),
    Index("webhook_delivery_created_at_idx", "created_at"),
)

# Rules whose amounts were changed since the leader looked, put here by a trigger.
webhook_budget_change = Table(
    "webhook_budget_change",
    metadata,
    Column("rule_id", UUID, primary_key=True),
    Column("organization_id", UUID, nullable=False),
    Index("webhook_budget_change_organization_id_idx", "organization_id"),
)

webhook_watch = Table(
    "webhook_watch",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "looked_until",
        TransactionId,
        comment="what transactions before it have spent was held against budgets; null: nobody wants to know",
    ),
    CheckConstraint("only_row", name="only_row"),
)
