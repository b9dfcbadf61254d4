"""Who waits for the OPEN record and who no longer does, against a Postgres that commits when the test says so."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.observe.metrics import Metrics
from gateway.settle.ledger import Entry, Ledger
from tests.support.records import close_record, open_record
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 10.0
SHORT_S = 0.02


class Gated(Ledger):
    """Commits nothing while `gate` is closed."""

    def __init__(self, *, open_hold_s: float) -> None:
        nowhere: Any = None
        super().__init__(nowhere, Metrics(), events_max=100, group_commit_s=0.0, open_hold_s=open_hold_s)
        self.gate = asyncio.Event()

    async def _insert(self, opens: list[Entry], closes: list[Entry]) -> None:
        await self.gate.wait()


@asynccontextmanager
async def writing(*, open_hold_s: float) -> AsyncIterator[Gated]:
    """A ledger that is written, once its gate is open."""
    ledger = Gated(open_hold_s=open_hold_s)
    writer = asyncio.ensure_future(ledger.run())
    try:
        yield ledger
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def held(ledger: Ledger) -> bool:
    """Open and close an event; return whether its hold had to wait."""
    entry = ledger.open(open_record())
    holding = asyncio.ensure_future(ledger.hold(entry))
    await asyncio.sleep(0)
    waits = not holding.done()
    await holding
    ledger.close(entry, close_record(entry.opened))
    return waits


async def test_a_hold_that_ran_into_its_time_is_the_last_one() -> None:
    async with writing(open_hold_s=SHORT_S) as ledger:
        assert await held(ledger)
        assert not any([await held(ledger) for _ in range(10)])


async def test_those_who_hold_together_are_let_go_together() -> None:
    async with writing(open_hold_s=SHORT_S) as ledger:
        first, *others = [ledger.open(open_record()) for _ in range(10)]
        for entry in others:
            entry.queued_s += PATIENCE_S  # their own time would be far from over
        await asyncio.wait_for(asyncio.gather(*(ledger.hold(entry) for entry in (first, *others))), PATIENCE_S / 2)
        assert not any(entry.durable for entry in (first, *others))


async def test_a_doubt_from_elsewhere_lets_go_and_lets_nobody_wait() -> None:
    async with writing(open_hold_s=PATIENCE_S) as ledger:
        holding = asyncio.ensure_future(held(ledger))
        await wait_until(lambda: ledger.pending, "somebody holds")
        assert not holding.done()
        ledger.doubt()
        assert await asyncio.wait_for(holding, PATIENCE_S / 2)
        assert not await held(ledger)


@pytest.mark.parametrize("rounds", [1, 3])
async def test_a_commit_ends_the_doubt(rounds: int) -> None:
    async with writing(open_hold_s=PATIENCE_S) as ledger:
        for _ in range(rounds):
            ledger.gate.clear()
            ledger.doubt()
            assert not await held(ledger)
            ledger.gate.set()
            await wait_until(lambda: not ledger.pending, "the records are committed")
            entry = ledger.open(open_record())
            await ledger.hold(entry)
            assert entry.durable
            ledger.close(entry, close_record(entry.opened))
            await wait_until(lambda: not ledger.pending, "the records are committed")
