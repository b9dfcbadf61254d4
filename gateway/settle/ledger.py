"""The ledger as the data path sees it: an admitted request is written twice, OPEN before its first byte, CLOSE after.

`open` reserves room for both records, so that closing can never be refused. `hold` lets the first byte go once the OPEN
record is durable, in Postgres or in the spool; when neither takes records it fails, and so does every `open` until one
of them does: nothing is served that cannot be accounted for. `gateway.settle.ledger_writer` writes what is queued here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from gateway.errors import LedgerFull, LedgerUnavailable
from gateway.settle.ledger_store import GROUP_MAX, Group

if TYPE_CHECKING:
    from gateway.settle.records import CloseRecord, OpenRecord

FULL_RETRY_S = 5.0
UNAVAILABLE_RETRY_S = 2.0

_log = structlog.get_logger("penstock.ledger")


@dataclass(slots=True, eq=False)
class Entry:
    """One request's place in the ledger, from OPEN to CLOSE."""

    opened: OpenRecord
    queued_s: float
    durable: bool = False
    """Whether the OPEN record outlives this process."""
    waiter: asyncio.Future[None] | None = None
    closed: CloseRecord | None = None


class Ledger:
    """Queues in memory. `open`, `close`, `hold` are the data path's; `group`, `written`, `refuse` the writer's."""

    def __init__(self, *, events_max: int) -> None:
        self._events_max = events_max
        self._opens: deque[Entry] = deque()
        self._closes: deque[tuple[float, CloseRecord]] = deque()
        self._entries = 0
        self.queued = asyncio.Event()
        """Something was queued since the writer last looked."""
        self.available = True
        """Whether records can be written anywhere."""

    def require_available(self) -> None:
        """Refuse a request before anything is done for it. Raises LedgerUnavailable."""
        if not self.available:
            raise _unavailable()

    def open(self, record: OpenRecord) -> Entry:
        """Reserve room for a request and queue its OPEN record.

        Raises:
            LedgerUnavailable: neither Postgres nor the spool takes records.
            LedgerFull: too many events wait to be written.
        """
        if not self.available:
            raise _unavailable()
        if self._entries >= self._events_max:
            raise LedgerFull("usage cannot be recorded now", retry_after_s=FULL_RETRY_S)
        self._entries += 1
        entry = Entry(record, time.monotonic())
        self._opens.append(entry)
        self.queued.set()
        return entry

    def close(self, entry: Entry, record: CloseRecord) -> None:
        """Queue the CLOSE record. Never waits, never fails: the room was reserved by `open`."""
        assert entry.closed is None, "an event closes once"
        entry.closed = record
        self._closes.append((time.monotonic(), record))
        self.queued.set()

    async def hold(self, entry: Entry) -> None:
        """Wait until the OPEN record is durable: for the writer's group, which has bounds of its own.

        Raises:
            LedgerUnavailable: it cannot be made durable. The event stays in the ledger and is to be closed like any
                other: the record may be in Postgres although nobody heard of it.
        """
        if entry.durable:
            return
        if not self.available:
            raise _unavailable()
        entry.waiter = asyncio.get_running_loop().create_future()
        try:
            await entry.waiter
        finally:
            entry.waiter = None

    def group(self) -> Group:
        """Return the oldest records, at most GROUP_MAX of each kind. They stay queued until `written`."""
        return Group(
            [entry.opened for entry in islice(self._opens, GROUP_MAX)],
            [record for _, record in islice(self._closes, GROUP_MAX)],
        )

    def written(self, group: Group) -> None:
        """The oldest records are durable: their holders go on, and closed events leave their room."""
        for _ in group.opens:
            entry = self._opens.popleft()
            entry.durable = True
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_result(None)
        for _ in group.closes:
            self._closes.popleft()
        self._entries -= len(group.closes)
        if not self.available:
            self.available = True
            _log.warning("ledger_available", pending=self.pending)

    def refuse(self, reason: str) -> None:
        """Nothing can be made durable: who holds is told, and nobody new is let in until something is `written`."""
        if self.available:
            self.available = False
            _log.error("ledger_unavailable", reason=reason, pending=self.pending)
        for entry in self._opens:
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_exception(_unavailable())

    def lag_s(self) -> float:
        """Return the age of the oldest record in memory, in seconds. Called from any thread."""
        oldest = [entry.queued_s for entry in tuple(self._opens)[:1]] + [at_s for at_s, _ in tuple(self._closes)[:1]]
        return max(time.monotonic() - min(oldest), 0.0) if oldest else 0.0

    def tell_unwritten(self) -> None:
        """At the end, with Postgres and the spool away: put what only this process knows into its log, one by one."""
        for kind, records in (
            ("open", [entry.opened for entry in self._opens]),
            ("close", [record for _, record in self._closes]),
        ):
            for record in records:
                _log.error("ledger_unwritten", kind=kind, record=str(record))

    @property
    def pending(self) -> int:
        """How many records are in memory alone."""
        return len(self._opens) + len(self._closes)


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("usage cannot be recorded now", retry_after_s=UNAVAILABLE_RETRY_S)
