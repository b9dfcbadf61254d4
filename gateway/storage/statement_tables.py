"""Tables of statements: what an organization used in a month, as it was said when the month was closed."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from gateway.storage.table_parts import TransactionId, metadata, row_id, sums_of_use

statement = Table(
    "statement",
    metadata,
    row_id(),
    Column("organization_id", UUID, ForeignKey("organization.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="counts the statements of one organization, without gaps"),
    Column("month", Date, nullable=False),
    Column("organization_name", Text, nullable=False, comment="as it was when the month was closed"),
    Column("source", Text, nullable=False),
    Column("closed_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column(
        "closed_xid",
        TransactionId,
        nullable=False,
        server_default=text("pg_current_xact_id()"),
        comment="the transaction that wrote it, which alone may write its lines",
    ),
    UniqueConstraint("organization_id", "number"),
    UniqueConstraint("organization_id", "month"),
    UniqueConstraint("organization_id", "id"),
    CheckConstraint("number > 0", name="number"),
    CheckConstraint("extract(day FROM month) = 1", name="month"),
    CheckConstraint("source IN ('schedule', 'manual')", name="source"),
)

statement_line = Table(
    "statement_line",
    metadata,
    Column("statement_id", UUID, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("organization_id", UUID, nullable=False),
    Column("of_month", Date, nullable=False, comment="its statement's month, or an earlier one that it corrects"),
    Column("team_id", UUID, nullable=False),
    Column("team_name", Text, nullable=False),
    Column("model", Text, nullable=False, comment="that served, whose price applies"),
    *sums_of_use(),
    ForeignKeyConstraint(["organization_id", "statement_id"], ["statement.organization_id", "statement.id"]),
    Index("statement_line_organization_id_idx", "organization_id", "of_month"),
)

statement_state = Table(
    "statement_state",
    metadata,
    Column("only_row", Boolean, primary_key=True, server_default=text("true")),
    Column("closed_through", Date, comment="the last month that was closed for all organizations"),
    CheckConstraint("only_row", name="only_row"),
)
