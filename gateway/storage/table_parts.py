"""What all tables share: the metadata they belong to, how constraints are named, columns that recur."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    MetaData,
    Numeric,
    text,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


class TransactionId(UserDefinedType[str]):
    """Postgres' xid8: the 64-bit id of a transaction, which never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """Return the type's name in DDL."""
        return "xid8"


ischema_names["xid8"] = TransactionId  # so that a schema that is read back has it, too


def row_id() -> Column[object]:
    """Return the primary key of what has a name and a life of its own."""
    return Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()"))


def created_at() -> Column[object]:
    """Return when a row was made."""
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()"))


def deleted_at() -> Column[object]:
    """Return when a row was deleted: it stays, for what refers to it."""
    return Column("deleted_at", DateTime(timezone=True))


def sums_of_use() -> list[Column[object]]:
    """Return what is summed up of events with their adjustments; sums of tokens outgrow 64 bits."""
    return [
        Column("requests", BigInteger, nullable=False),
        Column("estimated", BigInteger, nullable=False),
        Column("prompt_tokens", Numeric(38, 0), nullable=False),
        Column("cached_tokens", Numeric(38, 0), nullable=False),
        Column("completion_tokens", Numeric(38, 0), nullable=False),
        Column("reasoning_tokens", Numeric(38, 0), nullable=False),
        Column("cost_pico_usd", Numeric(38, 0), nullable=False),
    ]
