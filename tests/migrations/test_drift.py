"""The migrated schema is the one that `gateway.storage.tables` describes, to the last default and comment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.storage.dsn import asyncpg_dsn
from gateway.storage.migrate import include_object
from gateway.storage.tables import metadata
from tests.support.catalog import QUERIES, described

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine


def engine_of(dsn: str) -> AsyncEngine:
    """Return an engine without a pool, so that nothing stays open."""
    return create_async_engine(
        asyncpg_dsn(dsn).replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool
    )


async def test_alembic_sees_no_difference(postgres_dsn: str) -> None:
    def compared(connection: Connection) -> list[Any]:
        options = {"include_object": include_object, "compare_type": True, "compare_server_default": False}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    engine = engine_of(postgres_dsn)
    async with engine.connect() as connection:
        assert await connection.run_sync(compared) == []


@pytest.mark.parametrize("kind", QUERIES)
async def test_postgres_describes_both_the_same(postgres_dsn: str, empty_postgres_dsn: str, kind: str) -> None:
    """What alembic does not compare, too: checks, defaults, identities, comments, partition keys, index expressions."""
    engine = engine_of(empty_postgres_dsn)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    migrated, defined = await described(postgres_dsn), await described(empty_postgres_dsn)
    assert migrated[kind]
    assert migrated[kind] == defined[kind]
