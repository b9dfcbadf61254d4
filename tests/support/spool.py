"""The ledger's parts in the test's own process, with a spool in a folder of the test's, and ways to take that away."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from gateway.observe.metrics import Metrics
from gateway.settle.ledger import Ledger
from gateway.settle.ledger_writer import LedgerWriter
from gateway.settle.spool import Spool, open_spool
from gateway.settle.spool_drain import SpoolDrain
from tests.support.records import close_record, open_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from gateway.settle.ledger import Entry
    from gateway.settle.ledger_store import LedgerStore
    from gateway.settle.records import OpenRecord

BYTES_MAX = 2**30
END_S_MAX = 30.0


@dataclass
class Books:
    """A ledger that nobody writes yet: `writing` does."""

    ledger: Ledger
    store: LedgerStore
    spool: Spool
    writer: LedgerWriter
    drain: SpoolDrain
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        """Return one of its series."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def record(self, opened: OpenRecord | None = None, **closed: Any) -> Entry:
        """Open and close an event; `closed` are fields of its CLOSE record."""
        entry = self.ledger.open(opened or open_record())
        self.ledger.close(entry, close_record(entry.opened, **closed))
        return entry

    @property
    def unwritten(self) -> int:
        """How many records are not in Postgres."""
        return self.ledger.pending + self.spool.records


def make_books(
    make_store: Callable[[Metrics], LedgerStore],
    folder: Path,
    *,
    events_max: int = 10_000,
    open_hold_s: float = END_S_MAX,
    spool_bytes_max: int = BYTES_MAX,
) -> Books:
    """Put a ledger together, with a spool directory `folder`."""
    metrics = Metrics()
    ledger, store = Ledger(events_max=events_max), make_store(metrics)
    spool = open_spool(folder, uuid4(), spool_bytes_max, metrics.spool)
    writer = LedgerWriter(ledger, store, spool, metrics.spool, group_commit_s=0.005, open_hold_s=open_hold_s)
    return Books(ledger, store, spool, writer, SpoolDrain(spool, store, writer, metrics.spool), metrics)


@asynccontextmanager
async def writing(books: Books, *, drain: bool = True) -> AsyncIterator[Books]:
    """Write what is queued meanwhile, and all of it at the end; the spool is let go, as by a process that ends."""
    writer = asyncio.ensure_future(books.writer.run())
    tasks = [writer, *([asyncio.ensure_future(books.drain.run())] if drain else [])]
    try:
        yield books
        books.writer.stop()
        await asyncio.wait_for(asyncio.shield(writer), END_S_MAX)
        if drain:
            await books.drain.finish(END_S_MAX)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        books.drain.close()
        books.spool.close()


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Put a file where a process has its folder, for the time of the context: also root cannot write there then."""
    moved = folder.with_name(f".{folder.name}.moved")
    folder.rename(moved)
    folder.write_text("in the way")
    try:
        yield
    finally:
        folder.unlink()
        moved.rename(folder)


@contextmanager
def unwritable_spool(directory: Path) -> Iterator[None]:
    """Do as `unwritable` does to the one process that has its folder in a spool directory."""
    (folder,) = (path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    with unwritable(folder):
        yield


def copy_of(folder: Path, to: Path) -> Path:
    """Copy a process's folder as a kill would leave it, for another to find."""
    return shutil.copytree(folder, to / str(uuid4()))
