"""Connections to PostgreSQL for tests that talk to it themselves; closed also when the test fails."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Connection

ASK_S_MAX = 30.0


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Yield a connection of one's own."""
    connection = await asyncpg.connect(dsn, timeout=ASK_S_MAX, command_timeout=ASK_S_MAX)
    try:
        yield connection
    finally:
        await connection.close()


async def ask(dsn: str, statement: str, *arguments: object) -> Any:
    """Run one statement and return the first value of its answer."""
    async with connected(dsn) as connection:
        return await connection.fetchval(statement, *arguments)
