"""What reconciliation remembers: counters of replicas and engines when they were last taken as right."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from gateway.storage.table_parts import metadata

reconcile_baseline = Table(
    "reconcile_baseline",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True, comment="boot id of a replica, address of an engine"),
    Column("taken_at", DateTime(timezone=True), nullable=False),
    Column("figures", JSONB, nullable=False),
    CheckConstraint("kind IN ('replica', 'engine')", name="kind"),
)
