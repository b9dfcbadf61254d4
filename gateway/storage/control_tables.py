"""Tables of the control plane itself: what was changed by whom, and which requests were answered already."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from gateway.storage.table_parts import created_at, metadata

# Append-only, written by triggers on the tables of tenants, prices and credentials alone.
audit_event = Table(
    "audit_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("organization_id", UUID, comment="whose thing it is; null: of the whole platform"),
    Column(
        "actor",
        JSONB,
        nullable=False,
        comment="who did it and from where: kind, id, name, credential, address, …",
    ),
    Column("action", Text, nullable=False),
    Column("subject_kind", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("before", JSONB, comment="the row without secrets; null: it was made"),
    Column("after", JSONB, comment="the row without secrets; null: it was removed"),
    CheckConstraint("action IN ('create', 'change', 'delete')", name="action"),
    Index("audit_event_organization_id_idx", "organization_id", "id"),
    Index("audit_event_subject_idx", "subject_kind", "subject_id", "id"),
)

idempotency_record = Table(
    "idempotency_record",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key_hash", LargeBinary, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("answer", LargeBinary, comment="encrypted under what the caller alone has: it may hold a key"),
    created_at(),
    Index("idempotency_record_created_at_idx", "created_at"),
)
