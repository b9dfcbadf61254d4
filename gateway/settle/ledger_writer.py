"""Writes the ledger's queue in groups: to Postgres, and to the spool from the moment that Postgres is late.

A group that Postgres has not committed within the hold goes to the spool, with whatever comes after it, until the drain
(`gateway.settle.spool_drain`) has moved everything over and sends the writer back. So a Postgres that hangs costs one
group of requests one wait. With the spool gone, too, Postgres is waited for a little longer; then requests are refused.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from gateway.patience import Deadline
from gateway.settle.ledger_store import Group, LedgerStore, NotCommitted, RecordRefused
from gateway.settle.spool import Spool, SpoolFailed

if TYPE_CHECKING:
    from gateway.observe.spool import SpoolMetrics
    from gateway.settle.ledger import Ledger

RETRY_S = 0.25
UNSPOOLED_COMMIT_S_MAX = 2.0
"""How long Postgres may take for a group that the spool does not take either."""

_log = structlog.get_logger("penstock.ledger")


class LedgerWriter:
    """One task writes. `direct` says whether groups go to Postgres or to the spool."""

    def __init__(
        self,
        ledger: Ledger,
        store: LedgerStore,
        spool: Spool,
        metrics: SpoolMetrics,
        *,
        group_commit_s: float,
        open_hold_s: float,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._spool = spool
        self._metrics = metrics
        self._group_commit_s = group_commit_s
        self.open_hold_s = open_hold_s
        self.direct = True
        self._stopping = False
        self._deadline: Deadline | None = None
        """Of the commit that runs."""
        metrics.ledger_available.set_function(lambda: int(ledger.available))
        metrics.ledger_spooling.set(0)

    async def run(self) -> None:
        """Write groups until `stop` was called and everything is written, or until cancelled."""
        ledger = self._ledger
        last_s = 0.0
        while not (self._stopping and not ledger.pending):
            if not ledger.pending:
                await ledger.queued.wait()
            ledger.queued.clear()
            # The first record after a pause is written at once; under load records gather for a moment.
            pause_s = last_s + self._group_commit_s - time.monotonic()
            if pause_s > 0 and not self._stopping:
                await asyncio.sleep(pause_s)
            last_s = time.monotonic()
            group = ledger.group()
            if group.opens or group.closes:
                await self._write(group)

    def stop(self) -> None:
        """Let `run` end once it has written what is queued."""
        self._stopping = True
        self._ledger.queued.set()

    def doubt(self) -> None:
        """Postgres was late elsewhere: who has waited for it once does not wait for it again."""
        if self.direct and self._spool.state == "ok":
            self._turn_to_spool("Postgres was late for another question")
            if self._deadline is not None:
                self._deadline.end()

    def turn_direct(self) -> None:
        """The spool is drained, or as good as: write to Postgres again."""
        if not self.direct:
            self.direct = True
            self._metrics.ledger_spooling.set(0)
            _log.info("ledger_direct")

    async def _write(self, group: Group) -> None:
        """Write one group somewhere, or refuse those who wait for it; then it stays queued, in order."""
        try:
            written = await self._write_somewhere(group)
        except Exception:
            self._ledger.refuse("the writer has failed")  # nobody may wait for a task that died of a bug
            raise
        if written:
            self._ledger.written(group)
        else:
            self._ledger.refuse("neither Postgres nor the spool takes records")
            await asyncio.sleep(RETRY_S)

    async def _write_somewhere(self, group: Group) -> bool:
        waited = False
        if self.direct and self._spool.state == "ok":
            try:
                await self._commit(group)
            except (NotCommitted, RecordRefused) as error:
                self._turn_to_spool(str(error))
            else:
                return True
        elif self.direct:
            if await self._write_unspooled(group):
                return True
            waited = True
        try:
            refused = await self._spool.append(group.opens, group.closes)
        except SpoolFailed:
            return not waited and await self._write_unspooled(group)
        if waited:
            self._turn_to_spool("Postgres is late, and the spool takes records again")
        for record, reason in refused:
            self._store.rejected(record, reason)
        return True

    async def _commit(self, group: Group) -> None:
        self._deadline = Deadline(self.open_hold_s)
        try:
            await self._store.commit(group, self._deadline)
        finally:
            self._deadline = None

    async def _write_unspooled(self, group: Group) -> bool:
        try:
            await self._store.write(group, UNSPOOLED_COMMIT_S_MAX)
        except NotCommitted:
            return False
        return True

    def _turn_to_spool(self, reason: str) -> None:
        if self.direct:
            self.direct = False
            self._spool.filled.set()
            self._metrics.ledger_spooling.set(1)
            _log.warning("ledger_spooling", reason=reason)
