"""The whole database as text: what a request has changed, and whose it is, can be seen whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.storage.tables import metadata

if TYPE_CHECKING:
    from gateway.admin.database import Database

_BESIDE: Final = frozenset(
    {"idempotency_record", "replica", "replica_checkpoint", "reconcile_baseline", "rollup_state"}
)
# The ledger's tables are partitioned by day, and slow to read whole; no operation writes to them.
_LEDGER: Final = ("usage_", "reaper_")
_TABLES: Final = sorted(name for name in metadata.tables if name not in _BESIDE and not name.startswith(_LEDGER))
_ROWS: Final = " UNION ALL ".join(
    f"SELECT '{name} ' || to_jsonb(x)::text AS row FROM {name} x"  # noqa: S608 - names of the schema
    for name in _TABLES
)


async def rows_of(db: Database) -> frozenset[str]:
    """Return every row of the control plane's tables, with its table's name."""
    return frozenset(row["row"] for row in await db.fetch(_ROWS))
