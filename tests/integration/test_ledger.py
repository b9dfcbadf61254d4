"""The ledger on a real Postgres: every record once and whole, in groups, whatever one of them holds."""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.dev.postgres import start_postgres
from gateway.errors import LedgerFull
from gateway.settle import spool_drain
from gateway.settle.ledger_store import GROUP_MAX, LedgerStore
from gateway.storage.postgres import open_pool
from tests.support.postgres import ask, connected
from tests.support.records import close_record, event_id_at, open_record, written_closes, written_opens
from tests.support.spool import Books, make_books, writing
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from gateway.storage.postgres import Pool

    NewBooks = Callable[..., Books]

PATIENCE_S = 10.0
SHORT_S = 0.02


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    await pool.close()


@pytest.fixture
def new_books(pool: Pool, tmp_path: Path) -> NewBooks:
    """Makes ledgers on the pool that nobody writes yet, each with a spool; see `make_books`."""
    return partial(make_books, partial(LedgerStore, pool), tmp_path / "spool")


async def test_every_field_of_both_records_is_written(new_books: NewBooks, postgres_dsn: str) -> None:
    async with writing(new_books()) as books:
        full = books.record()
        bare = books.record(
            open_record(user_id=None),
            engine=None,
            session=None,
            price_id=None,
            http_status=None,
            ttft_ms=None,
            error_code="upstream_error",
            streamed=False,
        )
    assert full.durable
    assert await written_opens(postgres_dsn) == {each.opened.event_id: each.opened for each in (full, bare)}
    assert await written_closes(postgres_dsn) == {each.opened.event_id: each.closed for each in (full, bare)}


async def test_an_open_record_is_durable_before_the_hold_ends(new_books: NewBooks, postgres_dsn: str) -> None:
    async with writing(new_books()) as books:
        entry = books.ledger.open(open_record())
        before = entry.durable
        await books.ledger.hold(entry)
        assert (before, entry.durable) == (False, True)
        assert list(await written_opens(postgres_dsn)) == [entry.opened.event_id]
        assert await written_closes(postgres_dsn) == {}
        await books.ledger.hold(entry)
        books.ledger.close(entry, close_record(entry.opened))


async def test_many_records_are_few_commits(new_books: NewBooks, postgres_dsn: str) -> None:
    events = 2 * GROUP_MAX + 1
    async with writing(new_books()) as books:
        for _ in range(events):
            books.record()
        assert books.ledger.pending == 2 * events
        assert books.ledger.lag_s() > 0
    assert len(await written_opens(postgres_dsn)) == len(await written_closes(postgres_dsn)) == events
    assert books.sample("penstock_ledger_commit_seconds_count") == 3
    assert books.sample("penstock_ledger_records_total", record="open") == events
    assert books.sample("penstock_ledger_records_total", record="close") == events
    assert (books.ledger.pending, books.ledger.lag_s()) == (0, 0.0)


async def test_a_record_whose_commit_was_not_heard_of_is_written_again_and_counts_once(
    new_books: NewBooks, postgres_dsn: str
) -> None:
    async with writing(new_books()) as books:
        first = books.record()
    async with writing(new_books()) as again:
        again.record(first.opened, prompt_tokens=1)
        other = again.record()
    closes = await written_closes(postgres_dsn)
    assert closes == {first.opened.event_id: first.closed, other.opened.event_id: other.closed}
    assert len(await written_opens(postgres_dsn)) == 2


async def test_the_writer_makes_the_partition_that_is_missing(new_books: NewBooks, postgres_dsn: str) -> None:
    """Also for several days in one group, and when the close comes in another group than the open."""
    days = [dt.datetime(2031, 5, day, 23, 59, 59, 999_000, dt.UTC) for day in (1, 2)]
    async with writing(new_books()) as books:
        entries = [books.record(open_record(event_id_at(day))) for day in days]
        late = books.ledger.open(open_record(event_id_at(dt.datetime(2031, 6, 1, tzinfo=dt.UTC))))
        await books.ledger.hold(late)
        books.ledger.close(late, close_record(late.opened))
    assert await written_closes(postgres_dsn) == {each.opened.event_id: each.closed for each in (*entries, late)}
    for name in ("usage_open_20310501", "usage_event_20310502", "usage_event_20310601"):
        assert await ask(postgres_dsn, "SELECT count(*) FROM pg_class WHERE relname = $1", name) == 1
    assert not books.store.away


@pytest.mark.parametrize(
    "poison",
    [
        {"prompt_tokens": -1},
        {"status": "unheard of"},
        {"session": "\x00"},
        {"prompt_tokens": 2**70},
        {"engine": 7},
    ],
    ids=["refused by a check", "refused by another", "no text to Postgres", "out of range", "of a wrong type"],
)
async def test_a_record_that_postgres_refuses_blocks_no_other(
    new_books: NewBooks, postgres_dsn: str, poison: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        async with writing(new_books()) as books:
            before = [books.record() for _ in range(3)]
            bad = books.record(**poison)
            after = [books.record() for _ in range(3)]
    assert set(await written_opens(postgres_dsn)) == {each.opened.event_id for each in (*before, bad, *after)}
    assert set(await written_closes(postgres_dsn)) == {each.opened.event_id for each in (*before, *after)}
    assert books.sample("penstock_ledger_rejected_records_total") == 1
    assert not books.store.away
    (told,) = [line for line in logs if line["event"] == "ledger_rejected"]
    assert str(bad.opened.event_id) in told["record"], "what only this process knew is in its log"


async def test_a_full_ledger_takes_nothing_new_and_closes_all_it_took(new_books: NewBooks, postgres_dsn: str) -> None:
    books = new_books(events_max=2)
    entries = [books.ledger.open(open_record()) for _ in range(2)]
    with pytest.raises(LedgerFull) as refused:
        books.ledger.open(open_record())
    assert (refused.value.status, refused.value.retry_after_s) == (503, 5.0)
    async with writing(books):
        await books.ledger.hold(entries[0])
        with pytest.raises(LedgerFull):
            books.ledger.open(open_record())  # an open event keeps its room: it must be able to close
        books.ledger.close(entries[0], close_record(entries[0].opened))
        await wait_until(lambda: not books.ledger.pending, "it is written")
        books.record()
        books.ledger.close(entries[1], close_record(entries[1].opened))
    assert len(await written_closes(postgres_dsn)) == 3


async def test_an_event_closes_once(new_books: NewBooks) -> None:
    books = new_books()
    entry = books.record()
    with pytest.raises(AssertionError):
        books.ledger.close(entry, close_record(entry.opened))


async def test_a_hold_ends_by_the_spool_when_postgres_does_not_commit(new_books: NewBooks, postgres_dsn: str) -> None:
    """Somebody holds a lock: the answer goes out once the record is in the spool, and Postgres gets it when it can."""
    books = new_books(open_hold_s=SHORT_S)
    async with connected(postgres_dsn) as other, writing(books):
        async with other.transaction():
            await other.execute("LOCK TABLE usage_open IN ACCESS EXCLUSIVE MODE")
            entries = [books.ledger.open(open_record()) for _ in range(3)]
            await asyncio.gather(*(books.ledger.hold(entry) for entry in entries))
            late = books.ledger.open(open_record())
            await books.ledger.hold(late)
            assert all(entry.durable for entry in (*entries, late))
            assert books.spool.records == 4
        await wait_until(lambda: not books.unwritten, "the records are in Postgres")
    assert len(await written_opens(postgres_dsn)) == 4


async def test_giving_up_on_a_hold_leaves_the_record(new_books: NewBooks, postgres_dsn: str) -> None:
    books = new_books()
    entry = books.ledger.open(open_record())
    holding = asyncio.ensure_future(books.ledger.hold(entry))
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    async with writing(books):
        pass
    assert list(await written_opens(postgres_dsn)) == [entry.opened.event_id]


async def test_broken_connections_lose_nothing(
    new_books: NewBooks, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_drain, "RETRY_S_MIN", 0.0)
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'penstock'"
    async with writing(new_books()) as books:
        entries = [books.record() for _ in range(100)]
        for _ in range(5):
            assert await ask(postgres_dsn, cut) >= 0
            entries.append(books.record())
            await wait_until(lambda: not books.unwritten, "all is written")
    assert set(await written_closes(postgres_dsn)) == {each.opened.event_id for each in entries}


async def test_while_postgres_is_away_records_go_to_the_spool_and_then_over(
    own_postgres: RunningServer, tmp_path: Path
) -> None:
    dsn, folder = own_postgres.address, own_postgres.data.parent.parent
    pool = await open_pool(dsn, pooled=False, wait_s=PATIENCE_S)
    async with writing(make_books(partial(LedgerStore, pool), tmp_path, events_max=3)) as books:
        entries = [books.record()]
        await wait_until(lambda: not books.unwritten, "it is written")
        own_postgres.child.stop()
        for _ in range(10):  # more than there is room for in memory
            entry = books.ledger.open(open_record())
            await books.ledger.hold(entry)
            books.ledger.close(entry, close_record(entry.opened))
            await wait_until(lambda: not books.ledger.pending, "it is in the spool")
            entries.append(entry)
        assert (books.spool.records, books.store.away, books.writer.direct) == (20, True, False)
        server = await asyncio.to_thread(start_postgres, folder, folder / "logs")
        with server.child:
            assert server.address == dsn
            await wait_until(lambda: not books.unwritten, "all is in Postgres")
            assert await written_opens(dsn) == {each.opened.event_id: each.opened for each in entries}
            assert await written_closes(dsn) == {each.opened.event_id: each.closed for each in entries}
            await wait_until(lambda: books.writer.direct, "groups go to Postgres again")
            assert not books.store.away
            pool.terminate()


async def test_what_could_not_be_written_is_told_record_by_record(new_books: NewBooks) -> None:
    books = new_books()
    entry = books.record()
    with capture_logs() as logs:
        books.ledger.tell_unwritten()
    assert [(line["event"], line["kind"]) for line in logs] == [
        ("ledger_unwritten", "open"),
        ("ledger_unwritten", "close"),
    ]
    assert all(str(entry.opened.event_id) in line["record"] for line in logs)
