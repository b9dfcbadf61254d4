"""Spools on their way into a real Postgres: in order, whatever is damaged or refused, one's own and the dead's."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.settle import spool as spool_module
from gateway.settle import spool_drain
from gateway.settle.ledger_store import COMMIT_S_MAX, GROUP_MAX, Group, LedgerStore
from gateway.settle.spool_frames import MAGIC, encode, header
from gateway.storage.postgres import open_pool
from tests.support.postgres import connected
from tests.support.records import close_record, open_record, written_closes, written_opens
from tests.support.spool import Books, copy_of, make_books, writing
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from gateway.observe.metrics import Metrics
    from gateway.settle.ledger import Entry
    from gateway.settle.records import CloseRecord
    from gateway.storage.postgres import Pool, PoolProxy

    NewBooks = Callable[..., Books]

PATIENCE_S = 10.0


class Remembering(LedgerStore):
    """Remembers the groups that it was asked to write, in order."""

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        super().__init__(pool, metrics)
        self.groups: list[Group] = []

    async def write(self, group: Group, seconds: float) -> None:
        """Write, and take note."""
        await super().write(group, seconds)
        self.groups.append(group)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    await pool.close()


@pytest.fixture
def new_books(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewBooks:
    """Makes ledgers on the pool that share a spool directory and often look for what others have left."""
    monkeypatch.setattr(spool_drain, "ROUND_S", 0.05)
    return partial(make_books, partial(Remembering, pool), tmp_path / "spool")


async def spooled(books: Books, events: int, **closed: Any) -> list[Entry]:
    """Open and close events while Postgres is doubted and nobody drains; return them once they are in the spool."""
    books.writer.doubt()
    entries = [books.record(**closed) for _ in range(events)]
    writer = asyncio.ensure_future(books.writer.run())
    await wait_until(lambda: not books.ledger.pending, "they are in the spool")
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    return entries


def gone(directory: Path) -> bool:
    """Whether nothing is left in a spool directory."""
    return list(directory.iterdir()) == []


async def ids_of(written: Any, dsn: str) -> set[UUID]:
    """Return the ids of the events that were written."""
    return set(await written(dsn))


async def test_it_drains_in_order_in_groups_while_new_records_go_on(
    new_books: NewBooks, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", 100_000)
    books = new_books()
    entries = [entry for _ in range(5) for entry in await spooled(books, GROUP_MAX // 2)]
    assert len(list(books.spool.folder.path.glob("*.seg"))) > 3
    async with writing(books):
        for _ in range(50):
            entries.append(books.record())
            await asyncio.sleep(0)
        await wait_until(lambda: not books.unwritten and books.writer.direct, "it is drained")
        assert list(books.spool.folder.path.glob("*.seg")) == []
    assert await written_opens(postgres_dsn) == {each.opened.event_id: each.opened for each in entries}
    assert await written_closes(postgres_dsn) == {each.opened.event_id: each.closed for each in entries}
    assert isinstance(books.store, Remembering)
    assert max(len(group.opens) + len(group.closes) for group in books.store.groups) <= GROUP_MAX
    opened = [record.event_id for group in books.store.groups for record in group.opens]
    closed = [record.event_id for group in books.store.groups for record in group.closes]
    assert len(opened) >= 5 * (GROUP_MAX // 2)
    assert opened == closed == [each.opened.event_id for each in entries if each.opened.event_id in set(opened)]
    seen: set[UUID] = set()
    for group in books.store.groups:
        seen |= {record.event_id for record in group.opens}
        assert {record.event_id for record in group.closes} <= seen, "no event is closed before it is opened"


async def test_a_kill_in_the_middle_of_draining_loses_and_doubles_nothing(
    new_books: NewBooks, postgres_dsn: str, tmp_path: Path
) -> None:
    """A folder as it was before it was drained, beside what is in Postgres already: every commit is repeated."""
    books = new_books()
    entries = await spooled(books, 10)
    before = copy_of(books.spool.folder.path, tmp_path)
    async with writing(books):
        await wait_until(lambda: not books.unwritten, "it is drained")
        before.rename(tmp_path / "spool" / before.name)
        await wait_until(lambda: books.sample("penstock_spool_adopted_folders_total") == 1, "it is drained again")
    assert await written_closes(postgres_dsn) == {each.opened.event_id: each.closed for each in entries}
    assert await ids_of(written_opens, postgres_dsn) == {each.opened.event_id for each in entries}
    assert gone(tmp_path / "spool")


async def test_what_the_dead_left_is_drained_by_one_of_the_living(
    new_books: NewBooks, postgres_dsn: str, tmp_path: Path
) -> None:
    """And what the living have is theirs alone."""
    dead = [new_books() for _ in range(3)]
    entries = [entry for books in dead for entry in await spooled(books, 5)]
    for books in dead:
        books.drain.close()
        books.spool.close()
    living = new_books()
    theirs = await spooled(living, 1)
    first, second = new_books(), new_books()
    async with writing(first), writing(second):
        await wait_until(lambda: len(list((tmp_path / "spool").iterdir())) == 3, "the folders of the living are left")
        counted = [each.sample("penstock_spool_adopted_folders_total") for each in (first, second)]
        assert sum(counted) == 3
        assert await ids_of(written_closes, postgres_dsn) == {each.opened.event_id for each in entries}
    async with writing(living):
        pass
    assert await ids_of(written_closes, postgres_dsn) == {each.opened.event_id for each in (*entries, *theirs)}
    assert gone(tmp_path / "spool")


async def test_a_torn_tail_is_cut_off_and_no_more(new_books: NewBooks, postgres_dsn: str, tmp_path: Path) -> None:
    dead = new_books()
    entries = await spooled(dead, 3)
    (segment,) = dead.spool.folder.path.glob("*.seg")
    segment.write_bytes(segment.read_bytes() + encode([open_record()])[0][0][:-1])
    dead.spool.close()
    with capture_logs() as logs:
        async with writing(new_books()):
            await wait_until(lambda: len(list((tmp_path / "spool").iterdir())) == 1, "the folder is drained")
    assert await ids_of(written_closes, postgres_dsn) == {each.opened.event_id for each in entries}
    assert [line for line in logs if line["log_level"] == "error"] == []
    assert gone(tmp_path / "spool")


async def test_damage_is_told_and_kept_and_costs_nothing_else(
    new_books: NewBooks, postgres_dsn: str, tmp_path: Path
) -> None:
    dead = new_books()
    entries = await spooled(dead, 3)
    (segment,) = dead.spool.folder.path.glob("*.seg")
    damaged = bytearray(segment.read_bytes())
    damaged[len(header()) + 20] ^= 1  # in the first OPEN record
    segment.write_bytes(damaged)
    dead.spool.close()
    books = new_books()
    with capture_logs() as logs:
        async with writing(books):
            await wait_until(lambda: books.sample("penstock_spool_adopted_folders_total"), "the folder is drained")
            after = books.record()
    events = {each.opened.event_id for each in (*entries, after)}
    assert await ids_of(written_closes, postgres_dsn) == events
    assert await ids_of(written_opens, postgres_dsn) == events - {entries[0].opened.event_id}
    (told,) = [line for line in logs if line["event"] == "spool_corrupt"]
    (kept,) = (tmp_path / "spool").iterdir()
    assert (told["kept"], kept.suffix, kept.read_bytes()) == (str(kept), ".corrupt", bytes(damaged))
    assert books.sample("penstock_spool_corrupt_files_total") == 1


async def test_what_another_release_wrote_is_left_for_it(new_books: NewBooks, tmp_path: Path) -> None:
    dead = new_books()
    await spooled(dead, 1)
    (segment,) = dead.spool.folder.path.glob("*.seg")
    segment.write_bytes(MAGIC + b"\xff" + segment.read_bytes()[5:])
    dead.spool.close()
    books = new_books()
    with capture_logs() as logs:
        async with writing(books):
            await wait_until(lambda: books.sample("penstock_spool_left_folders") == 1, "it was looked at")
            books.record()
            await wait_until(lambda: not books.unwritten, "everything else goes on")
    assert len([line for line in logs if line["event"] == "spool_of_another_release"]) == 1
    assert segment.exists()


@pytest.mark.parametrize("poison", [{"prompt_tokens": -1}, {"session": "\x00"}, {"prompt_tokens": 2**70}])
async def test_a_record_that_postgres_refuses_is_told_and_blocks_no_other(
    new_books: NewBooks, postgres_dsn: str, poison: dict[str, Any]
) -> None:
    books = new_books()
    good = await spooled(books, 3)
    (bad,) = await spooled(books, 1, **poison)
    good += await spooled(books, 3)
    with capture_logs() as logs:
        async with writing(books):
            await wait_until(lambda: not books.unwritten, "it is drained")
    assert await ids_of(written_closes, postgres_dsn) == {each.opened.event_id for each in good}
    (told,) = [line for line in logs if line["event"] == "ledger_rejected"]
    assert str(bad.opened.event_id) in told["record"]


async def test_postgres_away_keeps_the_spool_and_a_lock_in_it_keeps_the_order(
    new_books: NewBooks, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_drain, "COMMIT_S_MAX", 0.05)
    books = new_books()
    await spooled(books, 5)
    async with connected(postgres_dsn) as other, writing(books):
        async with other.transaction():
            await other.execute("LOCK TABLE usage_open IN ACCESS EXCLUSIVE MODE")
            await wait_until(lambda: books.sample("penstock_ledger_commit_failures_total") >= 2, "it was tried")
            assert (books.spool.records, books.writer.direct) == (10, False)
        await wait_until(lambda: not books.unwritten, "it is drained")
    assert len(await written_closes(postgres_dsn)) == 5


async def test_who_was_closed_by_somebody_else_is_heard_of(pool: Pool, postgres_dsn: str, tmp_path: Path) -> None:
    """The hook of late closes: it sees the group when fewer records were new than it has."""
    heard: list[list[CloseRecord]] = []

    async def take_note(connection: PoolProxy, closes: Sequence[CloseRecord]) -> None:
        assert await connection.fetchval("SELECT count(*) FROM usage_event") == 1
        heard.append(list(closes))

    books = make_books(partial(LedgerStore, pool, when_short=take_note), tmp_path)
    opened = open_record()
    async with writing(books):
        books.record(opened)
        await wait_until(lambda: not books.unwritten, "it is written")
        assert heard == []
        late = books.record(opened, prompt_tokens=1)
        await wait_until(lambda: not books.unwritten, "it is written")
        await books.store.write(Group([opened], []), COMMIT_S_MAX)
    assert heard == [[late.closed]]
    assert await written_closes(postgres_dsn) == {opened.event_id: close_record(opened)}
