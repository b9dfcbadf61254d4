"""A term of the leader for a test that has the duty run itself: over a connection of its own, which may be broken."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.storage.leader import Term
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SILENCE_S_MAX = 60.0


@asynccontextmanager
async def term_on(dsn: str) -> AsyncIterator[Term]:
    """Yield a term that has just begun."""
    async with connected(dsn) as connection:
        yield Term(connection, SILENCE_S_MAX)
