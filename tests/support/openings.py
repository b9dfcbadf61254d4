"""What replicas left in Postgres, written straight into it: openings, with or without heartbeat, checkpoint, CLOSE."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec

from gateway.settle.late_closes import adjust_reaped
from gateway.settle.records import INSERT_CLOSE, INSERT_OPEN, CloseRecord, OpenRecord
from tests.support.postgres import ask, connected
from tests.support.records import open_record

if TYPE_CHECKING:
    from gateway.settle.checkpoints import UsedSoFar

_BEAT = """
INSERT INTO replica (boot_id, hostname, heartbeat_at) VALUES ($1, 'somewhere', clock_timestamp() - $2::interval)
ON CONFLICT (boot_id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at
"""
_CHECKPOINT = "INSERT INTO replica_checkpoint (boot_id, live, counters) VALUES ($1, $2::jsonb, '{}')"
_REAPED = "SELECT * FROM usage_event WHERE reaped AND boot_id = $1"


class Replica:
    """A replica as Postgres knows it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.boot_id = uuid4()

    async def beat(self, ago: dt.timedelta = dt.timedelta()) -> None:
        """Write a heartbeat."""
        await ask(self.dsn, _BEAT, self.boot_id, ago)

    async def open(self, **changes: Any) -> OpenRecord:
        """Write an OPEN record; `changes` are its fields."""
        (record,) = await self.open_many(1, **changes)
        return record

    async def open_many(self, count: int, **changes: Any) -> list[OpenRecord]:
        """Write several OPEN records in one transaction."""
        records = [open_record(boot_id=self.boot_id, **changes) for _ in range(count)]
        async with connected(self.dsn) as connection:
            await connection.execute(INSERT_OPEN, *zip(*records, strict=True))
        return records

    async def close(self, *records: CloseRecord) -> None:
        """Write CLOSE records as the ledger does, late ones too."""
        async with connected(self.dsn) as connection:
            said = await connection.execute(INSERT_CLOSE, *zip(*records, strict=True))
            if said != f"INSERT 0 {len(records)}":
                await adjust_reaped(connection, records)  # type: ignore[arg-type] # the pool's proxy does as the connection

    async def checkpoint(self, live: dict[UUID, UsedSoFar]) -> None:
        """Write a checkpoint."""
        text = msgspec.json.encode({str(event_id): used for event_id, used in live.items()}).decode()
        await ask(self.dsn, _CHECKPOINT, self.boot_id, text)

    async def reaped(self) -> dict[UUID, dict[str, Any]]:
        """Return the rows of events that were closed in this replica's place, by event id."""
        async with connected(self.dsn) as connection:
            return {row["event_id"]: dict(row) for row in await connection.fetch(_REAPED, self.boot_id)}
