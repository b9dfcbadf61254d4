"""The ledger on a real Postgres: every record once and whole, in groups, whatever one of them holds."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.dev.postgres import start_postgres
from gateway.errors import LedgerFull
from gateway.observe.metrics import Metrics
from gateway.settle import ledger as ledger_module
from gateway.settle.ledger import GROUP_MAX, Entry, Ledger
from gateway.storage.postgres import open_pool
from tests.support.postgres import ask, connected
from tests.support.records import close_record, event_id_at, open_record, written_closes, written_opens
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.dev.children import RunningServer
    from gateway.settle.records import OpenRecord
    from gateway.storage.postgres import Pool

PATIENCE_S = 10.0
SHORT_S = 0.02


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    await pool.close()


def make_ledger(pool: Pool, *, events_max: int = 10_000, open_hold_s: float = PATIENCE_S) -> Ledger:
    """Return a ledger that nobody writes yet."""
    return Ledger(pool, Metrics(), events_max=events_max, group_commit_s=0.005, open_hold_s=open_hold_s)


def sample(ledger: Ledger, name: str, **labels: str) -> float:
    """Return one of the ledger's series."""
    return ledger._metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def writing(ledger: Ledger) -> AsyncIterator[Ledger]:
    """Write what is queued meanwhile, and all of it at the end."""
    writer = asyncio.ensure_future(ledger.run())
    try:
        yield ledger
        ledger.stop()
        await asyncio.wait_for(writer, PATIENCE_S)
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


def record_event(ledger: Ledger, opened: OpenRecord | None = None, **closed: Any) -> Entry:
    """Open and close an event; `closed` are fields of its CLOSE record."""
    entry = ledger.open(opened or open_record())
    ledger.close(entry, close_record(entry.opened, **closed))
    return entry


async def test_every_field_of_both_records_is_written(pool: Pool, postgres_dsn: str) -> None:
    async with writing(make_ledger(pool)) as ledger:
        full = record_event(ledger)
        bare = record_event(
            ledger,
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


async def test_an_open_record_is_durable_before_the_hold_ends(pool: Pool, postgres_dsn: str) -> None:
    async with writing(make_ledger(pool)) as ledger:
        entry = ledger.open(open_record())
        before = entry.durable
        await ledger.hold(entry)
        assert (before, entry.durable) == (False, True)
        assert list(await written_opens(postgres_dsn)) == [entry.opened.event_id]
        assert await written_closes(postgres_dsn) == {}
        await ledger.hold(entry)
        ledger.close(entry, close_record(entry.opened))


async def test_many_records_are_few_commits(pool: Pool, postgres_dsn: str) -> None:
    events = 2 * GROUP_MAX + 1
    async with writing(make_ledger(pool)) as ledger:
        for _ in range(events):
            record_event(ledger)
        assert ledger.pending == 2 * events
        assert ledger.lag_s() > 0
    assert len(await written_opens(postgres_dsn)) == len(await written_closes(postgres_dsn)) == events
    assert sample(ledger, "penstock_ledger_commit_seconds_count") == 3
    assert sample(ledger, "penstock_ledger_records_total", record="open") == events
    assert sample(ledger, "penstock_ledger_records_total", record="close") == events
    assert (ledger.pending, ledger.lag_s()) == (0, 0.0)


async def test_a_record_whose_commit_was_not_heard_of_is_written_again_and_counts_once(
    pool: Pool, postgres_dsn: str
) -> None:
    async with writing(make_ledger(pool)) as ledger:
        first = record_event(ledger)
    async with writing(make_ledger(pool)) as again:
        record_event(again, first.opened, prompt_tokens=1)
        other = record_event(again)
    closes = await written_closes(postgres_dsn)
    assert closes == {first.opened.event_id: first.closed, other.opened.event_id: other.closed}
    assert len(await written_opens(postgres_dsn)) == 2


async def test_the_writer_makes_the_partition_that_is_missing(pool: Pool, postgres_dsn: str) -> None:
    """Also for several days in one group, and when the close comes in another group than the open."""
    days = [dt.datetime(2031, 5, day, 23, 59, 59, 999_000, dt.UTC) for day in (1, 2)]
    async with writing(make_ledger(pool)) as ledger:
        entries = [record_event(ledger, open_record(event_id_at(day))) for day in days]
        late = ledger.open(open_record(event_id_at(dt.datetime(2031, 6, 1, tzinfo=dt.UTC))))
        await ledger.hold(late)
        ledger.close(late, close_record(late.opened))
    assert await written_closes(postgres_dsn) == {each.opened.event_id: each.closed for each in (*entries, late)}
    for name in ("usage_open_20310501", "usage_event_20310502", "usage_event_20310601"):
        assert await ask(postgres_dsn, "SELECT count(*) FROM pg_class WHERE relname = $1", name) == 1
    assert not ledger.away


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
    pool: Pool, postgres_dsn: str, poison: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        async with writing(make_ledger(pool)) as ledger:
            before = [record_event(ledger) for _ in range(3)]
            bad = record_event(ledger, **poison)
            after = [record_event(ledger) for _ in range(3)]
    assert set(await written_opens(postgres_dsn)) == {each.opened.event_id for each in (*before, bad, *after)}
    assert set(await written_closes(postgres_dsn)) == {each.opened.event_id for each in (*before, *after)}
    assert sample(ledger, "penstock_ledger_rejected_records_total") == 1
    assert not ledger.away
    (told,) = [line for line in logs if line["event"] == "ledger_rejected"]
    assert str(bad.opened.event_id) in told["record"], "what only this process knew is in its log"


async def test_a_full_ledger_takes_nothing_new_and_closes_all_it_took(pool: Pool, postgres_dsn: str) -> None:
    ledger = make_ledger(pool, events_max=2)
    entries = [ledger.open(open_record()) for _ in range(2)]
    with pytest.raises(LedgerFull) as refused:
        ledger.open(open_record())
    assert (refused.value.status, refused.value.retry_after_s) == (503, 5.0)
    async with writing(ledger):
        await ledger.hold(entries[0])
        with pytest.raises(LedgerFull):
            ledger.open(open_record())  # an open event keeps its room: it must be able to close
        ledger.close(entries[0], close_record(entries[0].opened))
        await wait_until(lambda: not ledger.pending, "it is written")
        record_event(ledger)
        ledger.close(entries[1], close_record(entries[1].opened))
    assert len(await written_closes(postgres_dsn)) == 3


async def test_an_event_closes_once(pool: Pool) -> None:
    entry = record_event(make_ledger(pool))
    with pytest.raises(AssertionError):
        make_ledger(pool).close(entry, close_record(entry.opened))


async def test_a_hold_ends_in_its_time_when_postgres_does_not_commit(pool: Pool, postgres_dsn: str) -> None:
    """Somebody holds a lock: the answer goes out, the record waits, and is written when it can be."""
    ledger = make_ledger(pool, open_hold_s=SHORT_S)
    async with connected(postgres_dsn) as other, writing(ledger):
        async with other.transaction():
            await other.execute("LOCK TABLE usage_open IN ACCESS EXCLUSIVE MODE")
            entries = [ledger.open(open_record()) for _ in range(3)]
            await asyncio.gather(*(ledger.hold(entry) for entry in entries))
            late = ledger.open(open_record())
            await ledger.hold(late)
            assert not any(entry.durable for entry in (*entries, late))
        await wait_until(lambda: late.durable, "the records are written")
    assert len(await written_opens(postgres_dsn)) == 4


async def test_giving_up_on_a_hold_leaves_the_record(pool: Pool, postgres_dsn: str) -> None:
    ledger = make_ledger(pool)
    entry = ledger.open(open_record())
    holding = asyncio.ensure_future(ledger.hold(entry))
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    async with writing(ledger):
        pass
    assert list(await written_opens(postgres_dsn)) == [entry.opened.event_id]


async def test_broken_connections_lose_nothing(pool: Pool, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "RETRY_S", 0.0)
    cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'penstock'"
    async with writing(make_ledger(pool)) as ledger:
        entries = [record_event(ledger) for _ in range(100)]
        for _ in range(5):
            assert await ask(postgres_dsn, cut) >= 0
            entries.append(record_event(ledger))
            await wait_until(lambda: not ledger.pending, "all is written")
    assert set(await written_closes(postgres_dsn)) == {each.opened.event_id for each in entries}


async def test_while_postgres_is_away_records_wait_and_nobody_else_does(own_postgres: RunningServer) -> None:
    dsn, folder = own_postgres.address, own_postgres.data.parent.parent
    pool = await open_pool(dsn, pooled=False, wait_s=PATIENCE_S)
    async with writing(make_ledger(pool, events_max=3)) as ledger:
        before = record_event(ledger)
        await wait_until(lambda: not ledger.pending, "it is written")
        own_postgres.child.stop()
        first = ledger.open(open_record())
        await ledger.hold(first)
        away = [ledger.away]
        second = ledger.open(open_record())
        with pytest.raises(StopIteration):
            ledger.hold(second).send(None)  # at once: it waits for nothing
        assert not second.durable
        record_event(ledger)
        with pytest.raises(LedgerFull):
            ledger.open(open_record())
        for entry in (first, second):
            ledger.close(entry, close_record(entry.opened))
        server = await asyncio.to_thread(start_postgres, folder, folder / "logs")
        with server.child:
            assert server.address == dsn
            await wait_until(lambda: not ledger.pending, "all is written")
            away.append(ledger.away)
            assert away == [True, False]
            assert len(await written_opens(dsn)) == 4
            assert {before.opened.event_id, first.opened.event_id} < set(await written_closes(dsn))
            pool.terminate()


async def test_what_could_not_be_written_is_told_record_by_record(pool: Pool) -> None:
    ledger = make_ledger(pool)
    entry = record_event(ledger)
    with capture_logs() as logs:
        ledger.tell_unwritten()
    assert [(line["event"], line["kind"]) for line in logs] == [
        ("ledger_unwritten", "open"),
        ("ledger_unwritten", "close"),
    ]
    assert all(str(entry.opened.event_id) in line["record"] for line in logs)
