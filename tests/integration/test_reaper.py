"""The reaper on a real Postgres: whose events it closes, when it may, and what it says they used."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from gateway.domain.config import Price
from gateway.settle import reaper as reaper_module
from gateway.settle import unclosed as unclosed_module
from gateway.settle.checkpoints import UsedSoFar
from gateway.settle.price import EffectivePrice
from gateway.settle.reaper import DEADLINE_GRACE, REPLICAS_KEPT, Reaper
from gateway.settle.records import INSERT_OPEN
from gateway.units import PicoUsd
from tests.support.clock import Clock
from tests.support.openings import Replica
from tests.support.postgres import ask, connected
from tests.support.records import close_record, event_id_at, open_record
from tests.support.terms import term_on

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.settle.records import OpenRecord
    from gateway.storage.leader import Term

PATIENCE_S = 0.2
LOOKS_MAX = 500
PRICE = Price(PicoUsd(1_000), PicoUsd(100), PicoUsd(2_000), PicoUsd(3_000), PicoUsd(7))
LONG_AGO = dt.timedelta(days=1)


class Prices:
    """One price for all models, since yesterday."""

    def at(self, _model: str, when: dt.datetime) -> EffectivePrice | None:
        """Return it."""
        return EffectivePrice(42, PRICE) if when > dt.datetime.now(dt.UTC) - LONG_AGO else None


class Bench:
    """A reaper whose clock stands still, with a live replica beside those of the test."""

    def __init__(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dsn = dsn
        self.clock = Clock.put_into(reaper_module, monkeypatch)
        self.counts: Counter[str] = Counter()
        self.reaper = Reaper(Prices(), self, patience_s=PATIENCE_S)
        self.live = Replica(dsn)

    def reaped(self, reason: str, events: int) -> None:
        """Count what the reaper says."""
        self.counts[reason] += events

    async def look(self, term: Term) -> None:
        """Let the reaper run until it has looked at all that has come: an event long past its deadline tells."""
        await self.live.beat()
        overdue = await self.live.open(deadline_at=dt.datetime.now(dt.UTC) - DEADLINE_GRACE - dt.timedelta(seconds=1))
        for _ in range(LOOKS_MAX):
            await self.reaper.run(term)
            if overdue.event_id in await self.live.reaped():
                return
        raise AssertionError("the reaper did not look")

    async def bury(self, term: Term) -> None:
        """Let it look until a replica that is silent is gone."""
        await self.look(term)
        self.clock.now_s += PATIENCE_S
        await self.look(term)


@pytest.fixture
def bench(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A reaper on a fresh database."""
    return Bench(postgres_dsn, monkeypatch)


async def one_silent(bench: Bench) -> tuple[Replica, OpenRecord]:
    """Return a replica that has beaten once, and an event that it opened."""
    silent = Replica(bench.dsn)
    await silent.beat()
    return silent, await silent.open()


async def test_a_silent_replica_is_gone_after_the_patience_and_not_before(bench: Bench) -> None:
    silent, opened = await one_silent(bench)
    living = await bench.live.open()
    async with term_on(bench.dsn) as term:
        await bench.look(term)
        bench.clock.now_s += PATIENCE_S * 0.9
        await bench.look(term)
        assert await silent.reaped() == {}
        bench.clock.now_s += PATIENCE_S * 0.2
        await bench.look(term)
        assert list(await silent.reaped()) == [opened.event_id]
        assert living.event_id not in await bench.live.reaped(), "whose heart beats closes its events itself"
        assert bench.counts["replica_gone"] == 1


async def test_a_heartbeat_begins_the_patience_anew(bench: Bench) -> None:
    silent, _ = await one_silent(bench)
    async with term_on(bench.dsn) as term:
        for _ in range(3):
            await bench.look(term)
            bench.clock.now_s += PATIENCE_S * 0.9
            await silent.beat()
        await bench.look(term)
        assert await silent.reaped() == {}


async def test_what_was_seen_in_another_term_does_not_count(bench: Bench) -> None:
    """Between the two Postgres may have been away, and nobody could beat."""
    silent, opened = await one_silent(bench)
    async with term_on(bench.dsn) as term:
        await bench.look(term)
    bench.clock.now_s += PATIENCE_S * 10
    async with term_on(bench.dsn) as term:
        await bench.look(term)
        bench.clock.now_s += PATIENCE_S * 0.9
        await bench.look(term)
        assert await silent.reaped() == {}
        bench.clock.now_s += PATIENCE_S * 0.2
        await bench.look(term)
        assert list(await silent.reaped()) == [opened.event_id]


async def test_what_is_billed_is_what_the_last_checkpoint_says(bench: Bench) -> None:
    silent = Replica(bench.dsn)
    await silent.beat()
    known, waiting, unmentioned = await silent.open_many(
        3, endpoint="messages", streamed=True, estimate_prompt_tokens=30
    )
    closed = await silent.open()
    await silent.close(close_record(closed))
    await silent.checkpoint(
        {
            known.event_id: UsedSoFar(True, 100, 40, 11, 1, "served", "http://engine", "ses_1", 2, 15),
            waiting.event_id: UsedSoFar(False, 0, 0, 0, 0, None, None, None, 0, None),
        }
    )
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
    rows = await silent.reaped()
    assert set(rows) == {known.event_id, waiting.event_id, unmentioned.event_id}
    for record in (known, waiting, unmentioned):
        row = rows[record.event_id]
        same = ("opened_at", "boot_id", "organization_id", "team_id", "user_id", "key_id", "model", "endpoint")
        assert {name: row[name] for name in same} == {name: getattr(record, name) for name in same}
        assert (row["status"], row["coverage"], row["streamed"], row["price_id"]) == (
            "interrupted", "estimated", True, 42,
        )  # fmt: skip
        assert 0 <= row["duration_ms"] < 60_000
    assert used(rows[known.event_id]) == (100, 40, 11, 1, 60_000 + 4_000 + 20_000 + 3_000 + 7)
    assert used(rows[waiting.event_id]) == (0, 0, 0, 0, 0)
    assert used(rows[unmentioned.event_id]) == (30, 0, 0, 0, 30_007)
    row = rows[known.event_id]
    said = [row[name] for name in ("served_model", "engine", "session", "attempts", "ttft_ms")]
    assert said == ["served", "http://engine", "ses_1", 2, 15]
    assert rows[waiting.event_id]["engine"] is None
    assert (rows[unmentioned.event_id]["engine"], rows[unmentioned.event_id]["served_model"]) == ("unknown", "m")
    assert {row["session"] for row in rows.values()} == {"ses_1"}, "the opening knows it, too"


def used(row: dict[str, Any]) -> tuple[int, ...]:
    """Return tokens and money of a row."""
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_pico_usd")
    return tuple(int(row[name]) for name in names)


async def test_a_checkpoint_that_cannot_be_read_is_none(bench: Bench) -> None:
    silent, opened = await one_silent(bench)
    await ask(
        bench.dsn,
        "INSERT INTO replica_checkpoint (boot_id, live, counters) VALUES ($1, $2::jsonb, '{}')",
        silent.boot_id,
        f'{{"{opened.event_id}": {{"of": "another release"}}}}',
    )
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
    assert used((await silent.reaped())[opened.event_id])[0] == opened.estimate_prompt_tokens


async def test_what_a_spool_brings_later_is_closed_too(bench: Bench) -> None:
    """Also of a day long ago, and of a replica that is forgotten: what counts is when it came."""
    silent, _ = await one_silent(bench)
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
        moment = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        await ask(bench.dsn, "SELECT penstock_make_partitions($1, 1)", moment.date())
        old = await silent.open(event_id=event_id_at(moment))
        stranger = Replica(bench.dsn)
        future = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        unknown = await stranger.open(event_id=event_id_at(moment), deadline_at=future)
        await bench.look(term)
        assert old.event_id in await silent.reaped()
        assert list(await stranger.reaped()) == [unknown.event_id]
        assert used((await silent.reaped())[old.event_id])[4] == 0, "no price is known of that day"


async def test_none_is_missed_whose_transaction_ends_behind_the_others(bench: Bench) -> None:
    silent = Replica(bench.dsn)
    await silent.beat()
    async with term_on(bench.dsn) as term, connected(bench.dsn) as slow:
        await bench.look(term)
        transaction = slow.transaction()
        await transaction.start()
        earlier = open_record(boot_id=silent.boot_id)
        await slow.execute(INSERT_OPEN, *zip(earlier, strict=True))
        bench.clock.now_s += PATIENCE_S
        later = await silent.open()
        old_enough = "SELECT now() > ingested_at + make_interval(secs => $2) FROM usage_open WHERE event_id = $1"
        while not await ask(bench.dsn, old_enough, later.event_id, 2 * PATIENCE_S):
            await bench.reaper.run(term)
        await bench.reaper.run(term)
        assert await silent.reaped() == {}, "it does not read past a transaction that still runs"
        await transaction.commit()
        await bench.look(term)
        assert set(await silent.reaped()) == {earlier.event_id, later.event_id}


async def test_many_are_closed_in_slices_and_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unclosed_module, "SLICE_ROWS", 7)
    monkeypatch.setattr(unclosed_module, "KEPT_MAX", 30)
    monkeypatch.setattr(reaper_module, "BATCH_MAX", 8)
    monkeypatch.setattr(reaper_module, "BATCHES_MAX", 2)
    silent = Replica(bench.dsn)
    await silent.beat()
    opened: set[UUID] = set()
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
        for count in (1, 20, 3, 3, 3, 20, 1):
            opened |= {record.event_id for record in await silent.open_many(count)}
        await bench.look(term)
        for _ in range(3):
            await bench.reaper.run(term)
    assert set(await silent.reaped()) == opened
    assert bench.counts["replica_gone"] == len(opened)


async def test_the_next_leader_goes_on_where_all_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unclosed_module, "_SURE_STEP", dt.timedelta())
    sure = "SELECT closed_before FROM reaper_state"
    kept = await bench.live.open()
    came = await ask(bench.dsn, "SELECT ingested_at FROM usage_open WHERE event_id = $1", kept.event_id)
    async with term_on(bench.dsn) as term:
        await bench.look(term)
        assert await ask(bench.dsn, sure) < came, "it is not closed"
        await bench.live.close(close_record(kept))
        await bench.look(term)
        await bench.reaper.run(term)
        assert came < await ask(bench.dsn, sure) < dt.datetime.now(dt.UTC)
    silent, opened = await one_silent(bench)
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
        assert list(await silent.reaped()) == [opened.event_id]


async def test_replicas_long_gone_are_forgotten(bench: Bench) -> None:
    old, recent = Replica(bench.dsn), Replica(bench.dsn)
    await old.beat(ago=REPLICAS_KEPT + dt.timedelta(minutes=1))
    await recent.beat(ago=REPLICAS_KEPT - dt.timedelta(minutes=1))
    for replica in (old, recent):
        await replica.checkpoint({})
    async with term_on(bench.dsn) as term:
        await bench.bury(term)
        await bench.reaper.run(term)
    for table in ("replica", "replica_checkpoint"):
        known = f"SELECT array_agg(boot_id) FROM {table} WHERE boot_id <> $1"  # noqa: S608 - names of this test
        assert await ask(bench.dsn, known, bench.live.boot_id) == [recent.boot_id]
