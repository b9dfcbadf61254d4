"""Moves spools to Postgres: this process's own, in order, then folders that processes which have ended left behind.

A segment is deleted once all of it is committed. A kill in between has it written again, which changes nothing. New
records go on into the spool meanwhile; when hardly any are left, the writer turns to Postgres and the rest follows
within a group. One group at a time, one connection: many replicas that come back together are no stampede.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import structlog

from gateway.settle.ledger_store import COMMIT_S_MAX, GROUP_MAX, Group, LedgerStore, NotCommitted
from gateway.settle.records import CloseRecord, OpenRecord
from gateway.settle.spool_folder import LockedFolder, left_folders, take_folder
from gateway.settle.spool_frames import ForeignSegment, SegmentContents, read_segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    from gateway.observe.spool import SpoolMetrics
    from gateway.settle.ledger_writer import LedgerWriter
    from gateway.settle.spool import Segment, Spool
    from gateway.settle.spool_frames import Record

    T = TypeVar("T")

RETRY_S_MIN, RETRY_S_MAX = 0.25, 1.0
ROUND_S = 5.0
"""How often others' folders are looked for, and the spool is tried while nobody needs it."""

_log = structlog.get_logger("penstock.spool")


class SpoolDrain:
    """Runs as one task beside the writer."""

    def __init__(self, spool: Spool, store: LedgerStore, writer: LedgerWriter, metrics: SpoolMetrics) -> None:
        self._spool = spool
        self._store = store
        self._writer = writer
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "spool-drain")
        self._empty = asyncio.Event()
        self._foreign: set[Path] = set()
        """Folders of another release, to be left alone; as many as processes have died."""

    async def run(self) -> None:
        """Drain whatever there is until cancelled; while Postgres is away, ask it at most every RETRY_S_MIN."""
        retry_s = RETRY_S_MIN
        next_round_s = 0.0
        while True:
            self._spool.filled.clear()
            try:
                await self._drain_own()
                self._empty.set()
                if time.monotonic() >= next_round_s:
                    await self._spool.probe()
                    await self._adopt()
                    next_round_s = time.monotonic() + ROUND_S
            except NotCommitted:
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_S_MAX)
                continue
            retry_s = RETRY_S_MIN
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(next_round_s - time.monotonic(), 0.0)):
                    await self._spool.filled.wait()

    async def finish(self, seconds: float) -> None:
        """At the end of the process: give the spool up to `seconds` to get empty; what is left survives in it."""
        self._empty.clear()
        if self._spool.records:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()

    def close(self) -> None:
        """Give the thread back."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _drain_own(self) -> None:
        """Empty this process's spool and turn the writer to Postgres."""
        spool, writer = self._spool, self._writer
        answered = False
        while True:
            while (segment := spool.oldest_sealed()) is not None:
                answered = await self._drain_segment(segment.path, spool.folder) > 0 or answered
                await self._in_thread(partial(_forget, spool, segment))
            if not writer.direct and not spool.unsealed_records and not answered:
                await self._store.ask(COMMIT_S_MAX)
                answered = True
            if answered and spool.unsealed_records <= GROUP_MAX and self._store.answer_s <= writer.open_hold_s:
                writer.turn_direct()
            if not spool.unsealed_records:
                if writer.direct or not spool.oldest_sealed():
                    return
                continue
            await self._in_thread(spool.seal)

    async def _adopt(self) -> None:
        """Drain what ended processes have left, as long as this one's own records go to Postgres."""
        root = self._spool.folder.path.parent
        try:
            paths = await self._in_thread(lambda: left_folders(root, self._spool.folder.path.name))
        except OSError as error:
            _log.warning("spool_not_listed", folder=str(root), reason=str(error))
            return
        left = 0
        try:
            for path in paths:
                if not self._writer.direct:
                    return
                if path in self._foreign:
                    left += 1
                    continue
                folder = await self._in_thread(partial(take_folder, path))
                if folder is not None:
                    left += 1
                    left -= await self._drain_folder(folder)
        finally:
            self._metrics.left_folders.set(left)

    async def _drain_folder(self, folder: LockedFolder) -> bool:
        """Drain a folder and remove it; returns whether it is gone."""
        try:
            for path in await self._in_thread(folder.segments):
                await self._drain_segment(path, folder)
                await self._in_thread(partial(path.unlink, missing_ok=True))
        except ForeignSegment as error:
            self._foreign.add(folder.path)
            _log.error("spool_of_another_release", folder=str(folder.path), reason=str(error))
        except OSError as error:
            _log.error("spool_not_drained", folder=str(folder.path), reason=str(error))
        finally:
            gone = await self._in_thread(folder.leave)
        if gone:
            self._metrics.adopted.inc()
            _log.info("spool_adopted", folder=str(folder.path))
        return gone

    async def _drain_segment(self, path: Path, folder: LockedFolder) -> int:
        """Write a segment's records to Postgres, in order; a damaged file is kept aside after that.

        Returns:
            How many records there were.

        Raises:
            NotCommitted: Postgres is away; nothing of the file is lost.
            ForeignSegment: this release cannot read it.
        """
        try:
            contents = await self._in_thread(lambda: read_segment(path.read_bytes()))
        except FileNotFoundError:
            _log.error("spool_segment_gone", file=str(path))
            return 0
        except OSError as error:
            _log.error("spool_segment_unreadable", file=str(path), reason=str(error))
            contents = SegmentContents(broken=1)
        records = contents.records
        for start in range(0, len(records), GROUP_MAX):
            await self._store.write(_group(records[start : start + GROUP_MAX]), COMMIT_S_MAX)
        self._metrics.drained.inc(len(records))
        if contents.broken:
            self._metrics.corrupt.inc()
            try:
                kept = str(await self._in_thread(lambda: folder.set_aside(path)))
            except OSError as error:
                kept = f"not kept: {error}"
            _log.error("spool_corrupt", file=str(path), kept=kept, broken=contents.broken, drained=len(records))
        return len(records)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _forget(spool: Spool, segment: Segment) -> None:
    """Remove a drained segment; one that cannot be removed is written again by whoever finds it, which is harmless."""
    try:
        segment.path.unlink(missing_ok=True)
    except OSError as error:
        _log.error("spool_segment_stays", file=str(segment.path), reason=str(error))
    spool.drained(segment)


def _group(records: list[Record]) -> Group:
    return Group(
        [record for record in records if isinstance(record, OpenRecord)],
        [record for record in records if isinstance(record, CloseRecord)],
    )
