"""The ledger's spool: records on the local disk while Postgres does not take them, durable before anyone is answered.

Everything that touches the disk runs in a thread of its own and is waited for only so long, so a disk that hangs
hangs neither the event loop nor a request. A spool that is full or fails is as good as none: it says so, and is tried
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from gateway.errors import ConfigError
from gateway.patience import done_within
from gateway.settle.spool_folder import LockedFolder, make_folder, sync_folder
from gateway.settle.spool_frames import encode, header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeVar
    from uuid import UUID

    from gateway.observe.spool import SpoolMetrics
    from gateway.settle.records import CloseRecord, OpenRecord
    from gateway.settle.spool_frames import Record

    T = TypeVar("T")

SEGMENT_BYTES_MAX = 2**20
"""A segment that has reached this is followed by another: what is read, and written again after a kill, at once."""

WRITE_S_MAX = 2.0
"""How long one group may take to be written and synced before the spool counts as failing."""

_log = structlog.get_logger("penstock.spool")


class SpoolFailed(Exception):
    """The records were not written, or nobody can tell."""


class SpoolFull(SpoolFailed):
    """The records were not written: the spool has reached its bound."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of this process's folder. `since_s` is when its first record was written, monotonic."""

    path: Path
    since_s: float
    bytes: int = 0
    records: int = 0
    descriptor: int = -1


class Spool:
    """This process's folder. `append` is the writer's; sealed segments are the drain's, oldest first."""

    def __init__(self, folder: LockedFolder, bytes_max: int, metrics: SpoolMetrics) -> None:
        self.folder = folder
        self.filled = asyncio.Event()
        """Set by every append: there is something to drain."""
        self.state = "ok"
        """`ok`, `full` or `failing`."""
        self._bytes_max = bytes_max
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "spool")
        self._stuck: asyncio.Future[Any] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._active: Segment | None = None
        self._sealed: deque[Segment] = deque()
        self._number = 0
        metrics.bytes.set_function(lambda: self.bytes)
        metrics.records.set_function(lambda: self.records)
        metrics.oldest.set_function(self.age_s)
        metrics.available.set(1)

    @property
    def bytes(self) -> int:
        """How many bytes its segments have."""
        return sum(segment.bytes for segment in self._segments())

    @property
    def records(self) -> int:
        """How many records wait to be drained."""
        return sum(segment.records for segment in self._segments())

    def age_s(self) -> float:
        """Return the age of the oldest record, in seconds; 0 when there is none."""
        since = [segment.since_s for segment in self._segments() if segment.records]
        return max(time.monotonic() - since[0], 0.0) if since else 0.0

    async def append(self, opens: Sequence[OpenRecord], closes: Sequence[CloseRecord]) -> list[tuple[Record, str]]:
        """Write a group, OPEN records first; once this returns, it survives the end of the process.

        Returns:
            The records that cannot be written down at all, with the reason.

        Raises:
            SpoolFailed: full, failing or too slow. Some of the records may be in the spool all the same.
        """
        try:
            refused = await self._in_thread(lambda: self._append(opens, closes))
        except (OSError, SpoolFailed) as error:
            self._metrics.failures.inc()
            self._turn("full" if isinstance(error, SpoolFull) else "failing", str(error))
            raise SpoolFailed(str(error)) from error
        self._metrics.written.inc(len(opens) + len(closes) - len(refused))
        self._turn("ok", "")
        self.filled.set()
        return refused

    async def probe(self) -> None:
        """Find out whether records could be written, before one has to be."""
        try:
            await self._in_thread(self._probe)
        except (OSError, SpoolFailed) as error:
            self._turn("full" if isinstance(error, SpoolFull) else "failing", str(error))
        else:
            self._turn("ok", "")

    def oldest_sealed(self) -> Segment | None:
        """Return the oldest segment that is written no more, None when there is none."""
        return self._sealed[0] if self._sealed else None

    @property
    def unsealed_records(self) -> int:
        """How many records are in the segment that is being written."""
        return self._active.records if self._active is not None else 0

    def seal(self) -> None:
        """Let what is written next go to another segment. Waits for the disk: not for the event loop's thread."""
        with self._lock:
            self._seal()

    def drained(self, segment: Segment) -> None:
        """Forget a sealed segment, which is in Postgres or kept aside. Waits for the disk."""
        with self._lock:
            self._sealed.remove(segment)

    def close(self) -> None:
        """Let go of the folder, unless the disk hangs; what is left in it is drained by whoever finds it."""
        # What still runs is waited for: it would miss the folder, make it again and close the lock a second time, whose
        # number may be a connection's by then.
        gone = False
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._lock.acquire(timeout=WRITE_S_MAX):
            try:
                self._seal()
                self._closed = True
                gone = self.folder.leave()
            finally:
                self._lock.release()
        if not gone and (left := self.records):
            _log.warning("spool_left", folder=str(self.folder.path), records=left)

    def _segments(self) -> list[Segment]:
        active = self._active  # before the sealed ones, which it may be among by then
        sealed = list(self._sealed)
        return sealed if active is None or active in sealed else [*sealed, active]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in the spool's thread, and wait for it for WRITE_S_MAX at most; it goes on in any case."""
        if self._stuck is not None and not self._stuck.done():
            raise SpoolFailed("the disk has not answered yet")
        writing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        writing.add_done_callback(_hear)  # who is cancelled while it runs no longer does
        if not await done_within(writing, WRITE_S_MAX):
            self._stuck = writing
            raise SpoolFailed(f"the disk has not answered for {WRITE_S_MAX:g} s")
        return writing.result()

    def _append(self, opens: Sequence[OpenRecord], closes: Sequence[CloseRecord]) -> list[tuple[Record, str]]:
        frames, refused = encode([*opens, *closes])
        data = b"".join(frames)
        with self._lock:
            if self.bytes + len(data) > self._bytes_max:
                raise SpoolFull(f"it has reached its {self._bytes_max} bytes (spool_bytes_max)")
            segment = self._active or self._begin()
            try:
                if not os.path.samestat(os.fstat(segment.descriptor), segment.path.stat()):
                    raise FileNotFoundError(f"{segment.path} is another file now")
                _write_all(segment.descriptor, data)
                os.fsync(segment.descriptor)
            except OSError:
                self._cut_back(segment)
                raise
            segment.bytes += len(data)
            segment.records += len(frames)
            if segment.bytes >= SEGMENT_BYTES_MAX:
                self._seal()
        return refused

    def _begin(self) -> Segment:
        self._keep_folder()
        self._number += 1
        path = self.folder.path / f"{self._number:08}.seg"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        segment = Segment(path, time.monotonic(), descriptor=descriptor)
        try:
            head = header()
            _write_all(descriptor, head)
            sync_folder(self.folder.path)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        segment.bytes = len(head)
        self._active = segment
        return segment

    def _keep_folder(self) -> None:
        """Make the folder again when somebody has removed it: what it held is lost, what comes need not be."""
        if self._closed:
            raise SpoolFailed("the spool is closed")
        lost = self.folder
        if not lost.path.is_dir():
            self.folder = make_folder(lost.path.parent, lost.path.name)
            os.close(lost.lock)
            _log.error("spool_folder_gone", folder=str(lost.path), records=self.records)

    def _cut_back(self, segment: Segment) -> None:
        """Take back what a failed write has left, and write to this file no more: what it holds is drained as it is."""
        with contextlib.suppress(OSError):
            os.ftruncate(segment.descriptor, segment.bytes)
        self._seal()

    def _seal(self) -> None:
        segment = self._active
        if segment is None:
            return
        if segment.records:  # seen twice for a moment rather than not at all: others count without the lock
            self._sealed.append(segment)
        self._active = None
        os.close(segment.descriptor)
        if not segment.records:
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def _probe(self) -> None:
        with self._lock:
            if self.bytes >= self._bytes_max:
                raise SpoolFull(f"it has reached its {self._bytes_max} bytes (spool_bytes_max)")
            self._keep_folder()
            path = self.folder.path / "probe"
            path.write_bytes(b"x")
            path.unlink()

    def _turn(self, state: str, reason: str) -> None:
        if state == self.state:
            return
        self.state = state
        self._metrics.available.set(state == "ok")
        if state == "ok":
            _log.warning("spool_back", folder=str(self.folder.path))
        else:
            _log.error("spool_away", state=state, reason=reason, folder=str(self.folder.path))


def open_spool(root: Path, boot_id: UUID, bytes_max: int, metrics: SpoolMetrics) -> Spool:
    """Make this process's folder in the spool directory.

    Raises:
        ConfigError: nothing can be written there.
    """
    root = root.absolute()
    try:
        folder = make_folder(root, str(boot_id))
    except OSError as error:
        raise ConfigError(
            f"cannot write to the spool directory {root}: {error.strerror}; "
            "set PENSTOCK_SPOOL_DIR to a folder that this process may write to"
        ) from None
    return Spool(folder, bytes_max, metrics)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _hear(future: asyncio.Future[Any]) -> None:
    """Take note of what somebody no longer waits for."""
    if not future.cancelled():
        future.exception()
