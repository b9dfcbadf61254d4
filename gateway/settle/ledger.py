"""The ledger: every admitted request is written twice, OPEN before its first byte goes out and CLOSE when it has ended.

Records are committed in groups by one task. `open` reserves room for both, so that closing can never be refused; while
Postgres is away records wait in memory up to a bound, beyond which nothing new is admitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import asyncpg
import structlog

from gateway.errors import LedgerFull
from gateway.settle.records import INSERT_BOTH, INSERT_CLOSE, INSERT_OPEN, CloseRecord, OpenRecord
from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from gateway.observe.metrics import Metrics
    from gateway.storage.postgres import Pool, PoolProxy

GROUP_MAX = 1000
"""Records of each kind in one commit."""

RETRY_S = 0.25
COMMIT_S_MAX = 5.0
PARTITION_DAYS_AHEAD = 7

_log = structlog.get_logger("penstock.ledger")


@dataclass(slots=True, eq=False)
class Entry:
    """One request's place in the ledger, from OPEN to CLOSE."""

    opened: OpenRecord
    queued_s: float
    durable: bool = False
    """Whether the OPEN record is committed."""
    waiter: asyncio.Future[None] | None = None
    closed: CloseRecord | None = None


class Ledger:
    """Queues in memory, groups to Postgres. `run` writes; `open`, `close` and `hold` are the data path's."""

    def __init__(
        self, pool: Pool, metrics: Metrics, *, events_max: int, group_commit_s: float, open_hold_s: float
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._events_max = events_max
        self._group_commit_s = group_commit_s
        self._open_hold_s = open_hold_s
        self._opens: deque[Entry] = deque()
        self._closes: deque[tuple[float, Entry]] = deque()
        self._wake = asyncio.Event()
        self._entries = 0
        self._stopping = False
        self._release: asyncio.TimerHandle | None = None
        self._doubted = False
        self.away = False

    def open(self, record: OpenRecord) -> Entry:
        """Reserve room for a request and queue its OPEN record.

        Raises:
            LedgerFull: too many events wait for Postgres; nothing may be served that cannot be accounted for.
        """
        if self._entries >= self._events_max:
            raise LedgerFull("usage cannot be recorded now", retry_after_s=5.0)
        self._entries += 1
        entry = Entry(record, time.monotonic())
        self._opens.append(entry)
        self._wake.set()
        return entry

    def close(self, entry: Entry, record: CloseRecord) -> None:
        """Queue the CLOSE record. Never waits, never fails: the room was reserved by `open`."""
        assert entry.closed is None, "an event closes once"
        entry.closed = record
        self._closes.append((time.monotonic(), entry))
        self._wake.set()

    async def hold(self, entry: Entry) -> None:
        """Wait until the OPEN record is durable, at most a moment: then it waits in memory and the answer goes out."""
        if entry.durable or self.away or self._doubted:
            return
        loop = asyncio.get_running_loop()
        entry.waiter = loop.create_future()
        if self._release is None:
            self._release = loop.call_later(self._open_hold_s, self._release_late)
        try:
            await entry.waiter
        finally:
            entry.waiter = None

    def doubt(self) -> None:
        """Postgres was late, here or elsewhere: nobody holds any more until a group is committed again."""
        self._doubted = True
        self._release_all()

    async def run(self) -> None:
        """Write groups until `stop` was called and everything is written, or until cancelled."""
        last_s = 0.0
        while not (self._stopping and not self._opens and not self._closes):
            if not self._opens and not self._closes:
                await self._wake.wait()
            self._wake.clear()
            # The first record after a pause is written at once; under load records gather for a moment.
            pause_s = last_s + self._group_commit_s - time.monotonic()
            if pause_s > 0 and not self._stopping:
                await asyncio.sleep(pause_s)
            last_s = time.monotonic()
            if not await self._write_group():
                await asyncio.sleep(RETRY_S)

    def stop(self) -> None:
        """Let `run` end once it has written what is queued."""
        self._stopping = True
        self._wake.set()

    def lag_s(self) -> float:
        """Return the age of the oldest record that waits to be written, in seconds. Called from any thread."""
        oldest = [entry.queued_s for entry in tuple(self._opens)[:1]] + [at_s for at_s, _ in tuple(self._closes)[:1]]
        return max(time.monotonic() - min(oldest), 0.0) if oldest else 0.0

    def tell_unwritten(self) -> None:
        """At the end, with Postgres away: put what only this process knows into its log, record by record."""
        for kind, records in (
            ("open", [entry.opened for entry in self._opens]),
            ("close", [entry.closed for _, entry in self._closes]),
        ):
            for record in records:
                _log.error("ledger_unwritten", kind=kind, record=str(record))

    @property
    def pending(self) -> int:
        """How many records wait to be written."""
        return len(self._opens) + len(self._closes)

    async def _write_group(self) -> bool:
        """Commit one group; returns whether that worked. What failed stays queued, in order."""
        opens = list(islice(self._opens, GROUP_MAX))
        closes = [entry for _, entry in islice(self._closes, GROUP_MAX)]
        if not opens and not closes:
            return True
        started_s = time.monotonic()
        rejected = (0, 0)
        try:
            await self._insert(opens, closes)
        except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
            if not _is_about_content(error):
                self._failed(error)
                return False
            found = await self._insert_one_by_one(opens, closes)
            if found is None:
                return False
            rejected = found
        self._committed(opens, closes, rejected, time.monotonic() - started_s)
        return True

    async def _insert(self, opens: list[Entry], closes: list[Entry]) -> None:
        async with borrowed(self._pool, COMMIT_S_MAX) as connection:
            try:
                await _insert_rows(connection, opens, closes)
            except asyncpg.CheckViolationError as error:
                if "no partition" not in str(error):
                    raise
                days = {entry.opened.opened_at.date() for entry in (*opens, *closes)}
                for day in days:
                    await connection.execute("SELECT penstock_make_partitions($1, 1)", day)
                await _insert_rows(connection, opens, closes)

    async def _insert_one_by_one(self, opens: list[Entry], closes: list[Entry]) -> tuple[int, int] | None:
        """Postgres refuses a record for its content: find it, keep it in the log, and let the others through.

        Returns how many of each kind were refused, None when Postgres went away meanwhile.
        """
        rejected = [0, 0]
        for kind, entry in [*((0, entry) for entry in opens), *((1, entry) for entry in closes)]:
            try:
                await self._insert([entry] if kind == 0 else [], [entry] if kind == 1 else [])
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                if not _is_about_content(error):
                    self._failed(error)
                    return None
                rejected[kind] += 1
                self._metrics.ledger_rejected.inc()
                _log.error("ledger_rejected", reason=str(error), record=str(entry.closed or entry.opened))
        return rejected[0], rejected[1]

    def _committed(self, opens: list[Entry], closes: list[Entry], rejected: tuple[int, int], seconds: float) -> None:
        for entry in opens:
            self._opens.popleft()
            entry.durable = True
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_result(None)
        for _ in closes:
            self._closes.popleft()
        self._doubted = False
        self._entries -= len(closes)
        self._metrics.ledger_commit.observe(seconds)
        self._metrics.ledger_records.labels("open").inc(len(opens) - rejected[0])
        self._metrics.ledger_records.labels("close").inc(len(closes) - rejected[1])
        if self.away:
            self.away = False
            _log.warning("ledger_back", pending=self.pending)

    def _release_late(self) -> None:
        """One timer for all who hold: when the oldest has waited long enough, nobody waits any longer."""
        self._release = None
        now_s = time.monotonic()
        for entry in self._opens:
            if entry.waiter is None or entry.waiter.done():
                continue
            left_s = entry.queued_s + self._open_hold_s - now_s
            if left_s > 0:
                self._release = asyncio.get_running_loop().call_later(left_s, self._release_late)
                return
            self.doubt()
            return

    def _release_all(self) -> None:
        """Nobody waits for what cannot be had: the records are kept, the answers go out."""
        for entry in self._opens:
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_result(None)

    def _failed(self, error: BaseException) -> None:
        self._metrics.ledger_failures.inc()
        if not self.away:
            self.away = True
            _log.error("ledger_away", reason=f"{type(error).__name__}: {error}", pending=self.pending)
        self._release_all()


def _is_about_content(error: BaseException) -> bool:
    """Whether writing the same again must fail again: a value out of range, or one that a constraint refuses."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError))
    return isinstance(error, ValueError)  # asyncpg could not encode it


async def _insert_rows(connection: PoolProxy, opens: list[Entry], closes: list[Entry]) -> None:
    """Write both kinds in one statement, as columns."""
    opened_columns = zip(*(entry.opened for entry in opens), strict=True)
    closed_columns = zip(*(entry.closed for entry in closes if entry.closed is not None), strict=True)
    if opens and closes:
        await connection.execute(INSERT_BOTH, *opened_columns, *closed_columns)
    elif opens:
        await connection.execute(INSERT_OPEN, *opened_columns)
    else:
        await connection.execute(INSERT_CLOSE, *closed_columns)


async def keep_partitions_ahead(pool: Pool, *, every_s: float = 3600.0) -> None:
    """Make the coming days' partitions, every hour, until cancelled; the writer itself makes one that is missing."""
    while True:
        with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):
            async with borrowed(pool, COMMIT_S_MAX) as connection:
                await connection.execute(
                    "SELECT penstock_make_partitions((now() AT TIME ZONE 'UTC')::date, $1)", PARTITION_DAYS_AHEAD + 1
                )
        await asyncio.sleep(every_s)
