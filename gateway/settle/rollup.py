"""Rollups: hours, days and totals that hold every event and adjustment below a watermark, and nothing else.

The watermark is a transaction id, and everything below it has ended: what a rollup has not is exactly the rows of
transactions from the watermark on. So rollup and those rows together are exact in any one snapshot, however often or
seldom this runs. The work itself is the function `penstock_roll_up` (see its migration): one transaction that adds the
new rows and moves the watermark. Two replicas that do it at once take turns at the watermark's row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from gateway.storage.postgres import Pool, PoolProxy

ROLL_UP_EVERY_S = 2.0
ROLL_UP_S_MAX = 600.0
"""How long all passes of one run may take: the first after a restore, or of a ledger that was never rolled up."""

ROWS_MAX = 20_000
"""Rows added in one transaction; more only where one transaction has written more."""

_ROLL_UP = "SELECT rolled_up, behind FROM penstock_roll_up($1)"

_log = structlog.get_logger("penstock.rollup")


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: rows added to the rollups, and whether more wait already."""

    rolled_up: int
    behind: bool


async def roll_up_once(connection: PoolProxy, *, rows_max: int = ROWS_MAX, timeout_s: float = ROLL_UP_S_MAX) -> Pass:
    """Add at most `rows_max` rows, and the rest of the last one's transaction, to the rollups, in one transaction.

    Raises what asyncpg raises when Postgres is away, or its role may not.
    """
    row = await connection.fetchrow(_ROLL_UP, rows_max, timeout=timeout_s)
    assert row is not None, "a function with OUT parameters returns a row"
    return Pass(row["rolled_up"], row["behind"])


async def roll_up(pool: Pool, *, rows_max: int = ROWS_MAX) -> int:
    """Roll up all that can be, in as many transactions as it takes; return how many rows that were.

    Each pass is whole by itself: killed between two, or in the middle of one, the next run goes on where it stopped.
    """
    rows = 0
    while True:
        async with borrowed(pool, ROLL_UP_S_MAX) as connection:
            done = await roll_up_once(connection, rows_max=rows_max)
        rows += done.rolled_up
        if not done.behind:
            break
    if rows > rows_max:
        _log.info("rolled_up", rows=rows)
    return rows
