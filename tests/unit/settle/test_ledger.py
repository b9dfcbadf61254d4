"""Who waits for the OPEN record, for what and how long, with a Postgres that commits when the test says so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import LedgerUnavailable
from gateway.settle import ledger_writer
from gateway.settle.ledger_store import Group, LedgerStore
from tests.support.records import close_record, open_record
from tests.support.spool import Books, make_books, unwritable, writing
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.observe.metrics import Metrics

PATIENCE_S = 10.0
SHORT_S = 0.02


class Gated(LedgerStore):
    """Commits nothing while `gate` is closed."""

    def __init__(self, metrics: Metrics) -> None:
        nowhere: Any = None
        super().__init__(nowhere, metrics)
        self.gate = asyncio.Event()
        self.asked = 0
        self.written: list[Group] = []

    async def _insert(self, group: Group) -> None:
        self.asked += 1
        await self.gate.wait()
        self.written.append(group)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer's own waits be short."""
    monkeypatch.setattr(ledger_writer, "UNSPOOLED_COMMIT_S_MAX", SHORT_S)
    monkeypatch.setattr(ledger_writer, "RETRY_S", 0.0)


@asynccontextmanager
async def gated(folder: Path, *, open_hold_s: float) -> AsyncIterator[tuple[Books, Gated]]:
    """A ledger that is written, to Postgres once its gate is open; nobody drains its spool."""
    books = make_books(Gated, folder / "spool", open_hold_s=open_hold_s)
    assert isinstance(books.store, Gated)
    async with writing(books, drain=False):
        yield books, books.store
        books.store.gate.set()


async def held(books: Books) -> bool:
    """Open and close an event, held meanwhile; return whether its OPEN record was durable after the hold."""
    entry = books.ledger.open(open_record())
    await asyncio.wait_for(books.ledger.hold(entry), PATIENCE_S / 2)
    durable = entry.durable
    books.ledger.close(entry, close_record(entry.opened))
    return durable


async def test_a_group_that_postgres_is_late_for_goes_to_the_spool_and_so_do_the_next(tmp_path: Path) -> None:
    async with gated(tmp_path, open_hold_s=SHORT_S) as (books, store):
        assert await held(books)
        assert all([await held(books) for _ in range(10)])
        assert store.asked == 1, "who has waited for Postgres once does not wait for it again"
        await wait_until(lambda: not books.ledger.pending, "all is in the spool")
        assert books.spool.records == 22
        assert books.sample("penstock_ledger_spooling") == 1


async def test_those_who_hold_together_are_let_go_together(tmp_path: Path) -> None:
    async with gated(tmp_path, open_hold_s=SHORT_S) as (books, store):
        entries = [books.ledger.open(open_record()) for _ in range(10)]
        await asyncio.wait_for(asyncio.gather(*map(books.ledger.hold, entries)), PATIENCE_S / 2)
        assert all(entry.durable for entry in entries)
        assert (store.asked, books.spool.records) == (1, 10)


@pytest.mark.parametrize("in_flight", [True, False])
async def test_a_doubt_from_elsewhere_lets_nobody_wait_for_postgres(tmp_path: Path, *, in_flight: bool) -> None:
    async with gated(tmp_path, open_hold_s=PATIENCE_S) as (books, store):
        if in_flight:
            holding = asyncio.ensure_future(held(books))
            await wait_until(lambda: store.asked, "a commit runs")
            books.writer.doubt()
            assert await holding
        else:
            books.writer.doubt()
            assert await held(books)
        assert await held(books)
        assert store.asked == int(in_flight)


async def test_once_turned_back_groups_go_to_postgres(tmp_path: Path) -> None:
    async with gated(tmp_path, open_hold_s=PATIENCE_S) as (books, store):
        for rounds in range(1, 4):
            books.writer.doubt()
            assert await held(books)
            await wait_until(lambda: not books.ledger.pending, "it is in the spool")
            store.gate.set()
            books.writer.turn_direct()
            assert await held(books)
            await wait_until(lambda: not books.ledger.pending, "it is in Postgres")
            assert sum(len(group.closes) for group in store.written) == rounds
            assert books.spool.records == 2 * rounds


@pytest.mark.usefixtures("soon")
async def test_without_postgres_and_spool_nothing_is_served_until_one_is_back(tmp_path: Path) -> None:
    async with gated(tmp_path, open_hold_s=SHORT_S) as (books, store):
        ledger = books.ledger
        served = ledger.open(open_record())
        with unwritable(books.spool.folder.path):
            first, second = [ledger.open(open_record()) for _ in range(2)]
            for entry in (first, second):
                with pytest.raises(LedgerUnavailable) as refused:
                    await asyncio.wait_for(ledger.hold(entry), PATIENCE_S)
                assert (refused.value.status, refused.value.code) == (503, "ledger_unavailable")
                assert refused.value.retry_after_s
            with pytest.raises(LedgerUnavailable):
                ledger.open(open_record())
            with pytest.raises(LedgerUnavailable):
                ledger.require_available()
            for entry in (served, first, second):  # what was let in is closed all the same
                ledger.close(entry, close_record(entry.opened))
            assert books.sample("penstock_ledger_available") == 0
            store.gate.set()
            await wait_until(lambda: not ledger.pending, "Postgres takes them")
            assert await held(books), "a spool that fails is no reason to refuse anybody"
            await wait_until(lambda: not ledger.pending, "Postgres takes it")
        opened = [record.event_id for group in store.written for record in group.opens]
        closed = [record.event_id for group in store.written for record in group.closes]
        assert len(set(opened)) == len(opened) == 4
        assert set(closed) == set(opened)
        assert books.sample("penstock_ledger_available") == 1


@pytest.mark.usefixtures("soon")
async def test_the_spool_alone_ends_the_refusals_too(tmp_path: Path) -> None:
    async with gated(tmp_path, open_hold_s=SHORT_S) as (books, _):
        with unwritable(books.spool.folder.path):
            entry = books.ledger.open(open_record())
            with pytest.raises(LedgerUnavailable):
                await asyncio.wait_for(books.ledger.hold(entry), PATIENCE_S)
        await wait_until(lambda: books.ledger.available, "the spool takes records again")
        assert await held(books)
        books.ledger.close(entry, close_record(entry.opened))
        await wait_until(lambda: books.spool.records == 4, "all is in the spool")


async def test_a_writer_that_fails_lets_nobody_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = make_books(Gated, tmp_path, open_hold_s=PATIENCE_S)
    monkeypatch.setattr(books.writer, "_write_somewhere", None)
    holding = asyncio.ensure_future(books.ledger.hold(books.ledger.open(open_record())))
    with pytest.raises(TypeError):
        await books.writer.run()
    with pytest.raises(LedgerUnavailable):
        await holding
    books.drain.close()
    books.spool.close()
