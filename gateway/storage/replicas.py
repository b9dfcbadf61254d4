"""Which replicas live: each one's heartbeat in Postgres, and the count of them (the last known when it is away)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import asyncpg

from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.storage.postgres import Pool

HEARTBEAT_S = 2.0
LIVE_S = 10.0
_DEADLINE_S = 1.5

_BEAT = """
WITH beat AS (
    INSERT INTO replica (boot_id, hostname) VALUES ($1, $2)
    ON CONFLICT (boot_id) DO UPDATE SET heartbeat_at = now()
)
SELECT count(*) FROM replica WHERE boot_id <> $1 AND heartbeat_at > now() - make_interval(secs => $3)
"""


class Replicas:
    """This replica's heartbeat, and the count of live ones."""

    def __init__(self, pool: Pool, boot_id: UUID) -> None:
        self._pool = pool
        self._boot_id = boot_id
        self._live = 1

    def live(self) -> int:
        """Return how many replicas live, this one included; at least 1."""
        return self._live

    async def beat(self) -> None:
        """Say that this replica lives and count the others. Raises what asyncpg raises when Postgres is away."""
        async with borrowed(self._pool, _DEADLINE_S) as connection:
            others = await connection.fetchval(_BEAT, self._boot_id, socket.gethostname(), LIVE_S)
        self._live = 1 + int(others)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):  # the last known count stands
                await self.beat()
            await asyncio.sleep(HEARTBEAT_S)

    async def leave(self) -> None:
        """Stop counting as live, at a clean end."""
        with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):  # it lapses by itself
            async with borrowed(self._pool, _DEADLINE_S) as connection:
                await connection.execute(
                    "UPDATE replica SET heartbeat_at = now() - interval '1 hour' WHERE boot_id = $1", self._boot_id
                )
