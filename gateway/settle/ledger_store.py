"""The ledger's records on their way into Postgres: whole groups, and one by one where Postgres refuses one of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import structlog

from gateway.errors import reason_of
from gateway.patience import Deadline
from gateway.settle.records import INSERT_BOTH, INSERT_CLOSE, INSERT_OPEN, CloseRecord, OpenRecord
from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.observe.metrics import Metrics
    from gateway.settle.spool_frames import Record
    from gateway.storage.postgres import Pool, PoolProxy

GROUP_MAX = 1000
"""Records of each kind in one commit."""

COMMIT_S_MAX = 5.0

_log = structlog.get_logger("penstock.ledger")


class NotCommitted(Exception):
    """Postgres did not take the group in time, or nobody heard whether it did: to be written again."""


class RecordRefused(Exception):
    """Postgres refuses a record of the group for its content; nothing of the group was written."""


class Group(NamedTuple):
    """Records that are committed together, oldest first."""

    opens: Sequence[OpenRecord]
    closes: Sequence[CloseRecord]


class LedgerStore:
    """Writes groups, and knows whether Postgres answers. Writing a record again changes nothing."""

    def __init__(
        self,
        pool: Pool,
        metrics: Metrics,
        *,
        when_short: Callable[[PoolProxy, Sequence[CloseRecord]], Awaitable[None]] | None = None,
    ) -> None:
        """Make a store.

        Args:
            pool: the data path's.
            metrics: counts commits, records and failures.
            when_short: called with the CLOSE records of a group of which fewer were inserted than it has: the others
                were there already, written before by this ledger, or by whoever closed them in its place. What it
                raises counts as a failed commit, after which the group comes again.
        """
        self._pool = pool
        self._metrics = metrics
        self._when_short = when_short
        self.away = False
        """Whether the last attempt has failed."""
        self.answer_s = 0.0
        """How long the last commit took, or the last question, in seconds."""

    async def commit(self, group: Group, deadline: Deadline) -> None:
        """Commit a group.

        Raises:
            NotCommitted: Postgres is away or late.
            RecordRefused: a record can never be written.
        """
        started_s = time.monotonic()
        try:
            async with deadline:
                await self._insert(group)
        except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
            if _is_about_content(error):
                raise RecordRefused(str(error)) from error
            self._failed(error)
            raise NotCommitted(reason_of(error)) from error
        self._answered(started_s)
        self._metrics.ledger_commit.observe(self.answer_s)
        self._metrics.ledger_records.labels("open").inc(len(group.opens))
        self._metrics.ledger_records.labels("close").inc(len(group.closes))

    async def ask(self, seconds: float) -> None:
        """Find out whether Postgres answers. Raises NotCommitted."""
        started_s = time.monotonic()
        try:
            async with Deadline(seconds), borrowed(self._pool, COMMIT_S_MAX) as connection:
                await connection.execute("SELECT 1")
        except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
            self._failed(error)
            raise NotCommitted(reason_of(error)) from error
        self._answered(started_s)

    async def write(self, group: Group, seconds: float) -> None:
        """Commit a group, one by one where a record of it is refused: that one is told in full, the others get through.

        Raises:
            NotCommitted: Postgres is away or late; some of the group may be written.
        """
        try:
            await self.commit(group, Deadline(seconds))
        except RecordRefused:
            records: list[Record] = [*group.opens, *group.closes]
            for record in records:
                single = Group([record], []) if isinstance(record, OpenRecord) else Group([], [record])
                try:
                    await self.commit(single, Deadline(seconds))
                except RecordRefused as refusal:
                    self.rejected(record, str(refusal))

    def rejected(self, record: Record, reason: str) -> None:
        """Put a record that can be written nowhere into the log, in full."""
        self._metrics.ledger_rejected.inc()
        _log.error("ledger_rejected", reason=reason, record=str(record))

    async def _insert(self, group: Group) -> None:
        async with borrowed(self._pool, COMMIT_S_MAX) as connection:
            try:
                inserted = await _insert_rows(connection, group)
            except asyncpg.CheckViolationError as error:
                if "no partition" not in str(error):
                    raise
                days = {record.opened_at.date() for record in group.opens}
                for day in days | {record.opened_at.date() for record in group.closes}:
                    await connection.execute("SELECT penstock_make_partitions($1, 1)", day)
                inserted = await _insert_rows(connection, group)
            if inserted < len(group.closes) and self._when_short is not None:
                await self._when_short(connection, group.closes)

    def _answered(self, started_s: float) -> None:
        self.answer_s = time.monotonic() - started_s
        if self.away:
            self.away = False
            _log.warning("ledger_postgres_back")

    def _failed(self, error: BaseException) -> None:
        self._metrics.ledger_failures.inc()
        if not self.away:
            self.away = True
            _log.warning("ledger_postgres_away", reason=reason_of(error))


async def _insert_rows(connection: PoolProxy, group: Group) -> int:
    """Write both kinds in one statement, as columns; return how many CLOSE records were new."""
    opened_columns = zip(*group.opens, strict=True)
    closed_columns = zip(*group.closes, strict=True)
    if not group.closes:
        await connection.execute(INSERT_OPEN, *opened_columns)
        return 0
    if group.opens:
        said = await connection.execute(INSERT_BOTH, *opened_columns, *closed_columns)
    else:
        said = await connection.execute(INSERT_CLOSE, *closed_columns)
    return int(said.rpartition(" ")[2])  # "INSERT 0 7"


def _is_about_content(error: BaseException) -> bool:
    """Whether writing the same again must fail again: a value out of range, or one that a constraint refuses."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError))
    return isinstance(error, ValueError)  # asyncpg could not encode it
