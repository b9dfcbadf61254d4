"""The ledger's parts, put together: queue, writer, Postgres, the spool and its drain; started and ended as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.settle.late_closes import adjust_reaped
from gateway.settle.ledger import Ledger
from gateway.settle.ledger_store import LedgerStore
from gateway.settle.ledger_writer import LedgerWriter
from gateway.settle.spool_drain import SpoolDrain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.observe.metrics import Metrics
    from gateway.settings import Settings
    from gateway.settle.spool import Spool
    from gateway.storage.postgres import Pool

FLUSH_S_MAX = 15.0
"""How long the end waits for what is queued to be in Postgres or in the spool."""

DRAIN_S_MAX = 5.0
"""How long the end then waits for the spool to get empty: it survives there, but a pod's own disk goes with the pod."""


class Bookkeeping:
    """One replica's ledger. `ledger` is what the data path has of it."""

    def __init__(self, settings: Settings, pool: Pool, metrics: Metrics, spool: Spool) -> None:
        self.ledger = Ledger(events_max=settings.ledger_pending_events_max)
        self._spool = spool
        self.store = LedgerStore(pool, metrics, when_short=adjust_reaped)
        self.writer = LedgerWriter(
            self.ledger,
            self.store,
            spool,
            metrics.spool,
            group_commit_s=settings.ledger_group_commit_ms / 1000,
            open_hold_s=settings.ledger_open_hold_ms / 1000,
        )
        self.drain = SpoolDrain(spool, self.store, self.writer, metrics.spool)
        metrics.ledger_pending.set_function(lambda: self.ledger.pending + spool.records)
        metrics.ledger_lag.set_function(self.lag_s)

    def start(self, start: Callable[[str, Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]) -> None:
        """Begin to write, in tasks that `start` keeps."""
        self._writing = start("ledger", self.writer.run)
        start("spool", self.drain.run)

    async def finish(self) -> None:
        """Write out what is queued; what neither Postgres nor the spool has taken is told, record by record."""
        self.writer.stop()
        await asyncio.wait((self._writing,), timeout=FLUSH_S_MAX)
        self.ledger.tell_unwritten()
        await self.drain.finish(DRAIN_S_MAX)
        self.drain.close()

    def lag_s(self) -> float:
        """Return the age of this replica's oldest record that is not in Postgres, in seconds."""
        return max(self.ledger.lag_s(), self._spool.age_s())

    def parts(self) -> dict[str, str]:
        """Return how the ledger and the spool are, for /readyz."""
        state = "unavailable" if not self.ledger.available else "ok" if self.writer.direct else "spooling"
        return {"ledger": state, "spool": self._spool.state}
