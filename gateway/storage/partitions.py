"""Partitions of the ledger: one a day and table, made before anything falls into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.storage.postgres import Connection

DAYS_AHEAD = 7

_MAKE = "SELECT penstock_make_partitions((now() AT TIME ZONE 'UTC')::date, $1)"


async def make_partitions_ahead(connection: Connection) -> None:
    """Make today's partitions and those of the coming days; the ledger's writer itself makes one that is missing.

    Raises what asyncpg raises when Postgres is away.
    """
    await connection.execute(_MAKE, DAYS_AHEAD + 1)
