"""Budgets in Redis: begun with what Postgres sums up, and corrected against it now and then.

Redis forgets, so a counter is a cache of the ledger. A budget whose counter is missing is summed up before any request
is let through against it, once at a time; and every minute the counters that this replica has used are compared with
the ledger, for what was lost on the way: settles that never arrived, requests that were limited locally.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.admit.budget import NANO_USD_MAX, BudgetState, nano_usd
from gateway.admit.budget_counters import BATCH, BudgetCounters
from gateway.admit.budget_differences import Differences
from gateway.admit.budget_keys import redis_keys
from gateway.errors import BudgetUnknown, LimiterUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from gateway.admit.budget_counters import Correction, Reading
    from gateway.admit.claim import Claim
    from gateway.admit.leases import Redis
    from gateway.domain.budget import BudgetKey, Spent

ANSWER_S_MAX = 2.0
"""How long a request waits for its budgets to be summed up."""

SUM_S_MAX = 10.0
"""How long summing up may take; others that ask meanwhile wait for the same answer."""

ASKING_MAX = 1_000
"""Budgets that are summed up at the same time."""

AWAY_S = 1.0
"""After the ledger could not be asked, nobody asks it again for so long."""

RESYNC_S = 60.0
SOON_S = 2.0
"""How soon a budget is compared that was begun while requests ran; then after twice that, up to RESYNC_S."""

REBUILT_MAX = 1_000
"""Budgets that are compared so soon, BATCH at a time; others take their turn with all."""

USED_S = 300.0
"""Budgets that were used within it are compared."""

READINGS = 3
PAUSE_S = 1.0
"""Between reading Redis and asking the ledger: what has happened in Redis must have reached the ledger by then."""

BUDGETS_MAX = 20_000

_log = structlog.get_logger("penstock.admit")


class Spending(Protocol):
    """What the ledger knows."""

    async def spent(self, budgets: Sequence[BudgetKey]) -> list[Spent]:
        """Return what is spent of each budget, events and adjustments, and the most that open requests may cost.

        Raises Unavailable when the ledger cannot be asked.
        """
        ...

    async def reaped(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these were closed for a replica that died. Raises Unavailable as above."""
        ...


class BudgetBook:
    """What this replica knows of budgets. `told` is what Redis, or the ledger, said last.

    After `reservation_ttl_s` no request runs on that was admitted before.
    """

    def __init__(
        self, redis: Redis, spending: Spending, ledger_lag_s: Callable[[], float], reservation_ttl_s: float
    ) -> None:
        self._counters = BudgetCounters(redis, reservation_ttl_s)
        self._spending = spending
        self._ledger_lag_s = ledger_lag_s
        self._asking: dict[BudgetKey, asyncio.Task[None]] = {}
        self._away_until_s = 0.0
        self._told: dict[str, int] = {}
        self._used: dict[str, tuple[BudgetKey, float]] = {}
        self._soon = asyncio.Event()
        self._rebuilt: dict[BudgetKey, None] = {}
        """Budgets that requests hold which ran already when they were begun."""
        self._begun = asyncio.Event()

    def note(self, claim: Claim, totals: Iterable[int]) -> None:
        """Redis has granted a claim; `totals` are spent and reserved of each of its budgets, in nano-USD."""
        assert claim.periods is not None, "only claims on budgets have totals"
        for key, total in zip(claim.periods.redis[::2], totals, strict=False):
            self._tell(key, total)
        self.compare(claim)

    def compare(self, claim: Claim) -> None:
        """A claim was granted or refused: from now on its budgets are compared with the ledger.

        Also what refuses: counted too high where a replica died, it would refuse until its period ends.
        """
        now_s = time.monotonic()
        if claim.periods is not None:
            used = zip(claim.periods.redis[::2], claim.periods.sums, strict=True)
            self._used.update((key, (budget, now_s)) for key, budget in used)
        while len(self._used) > BUDGETS_MAX:
            del self._used[next(iter(self._used))]

    def told(self, key: str) -> int | None:
        """Return what was last known to be spent and reserved of a budget, by its key in Redis, in nano-USD."""
        return self._told.get(key)

    def resync_soon(self) -> None:
        """Redis has missed something."""
        self._soon.set()

    async def learn(self, budgets: Sequence[BudgetKey]) -> None:
        """Have budgets summed up and begun in Redis, if it answers.

        Raises:
            BudgetUnknown: the ledger cannot be asked, or does not answer in ANSWER_S_MAX.
        """
        asking, missing = self._asking, [budget for budget in budgets if budget not in self._asking]
        if missing:
            if time.monotonic() < self._away_until_s or len(asking) + len(missing) > ASKING_MAX:
                raise _unknown()
            task = asyncio.get_running_loop().create_task(self._learn(missing), name="sum up budgets")
            asking.update(dict.fromkeys(missing, task))
            task.add_done_callback(lambda done: self._learnt(missing, done))
        tasks = {asking[budget] for budget in budgets}
        _, late = await asyncio.wait(tasks, timeout=ANSWER_S_MAX)
        if late or any(task.cancelled() or task.exception() is not None for task in tasks):
            raise _unknown()

    async def run(self) -> None:
        """Compare with the ledger until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compare_used(), name="compare budgets")
            tasks.create_task(self._compare_begun(), name="compare begun budgets")

    async def _compare_used(self) -> None:
        """Compare what was used every RESYNC_S, and soon after Redis has missed something."""
        while True:
            try:
                async with asyncio.timeout(RESYNC_S * random.uniform(0.9, 1.1)):  # noqa: S311 - replicas take turns
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            await self.resync()

    async def _compare_begun(self) -> None:
        """Compare what was begun while requests ran, soon and ever less often: only the ledger knows their end."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            wait_s = SOON_S
            while self._rebuilt and wait_s < RESYNC_S and not self._begun.is_set():
                await asyncio.sleep(wait_s)
                await self.resync(list(self._rebuilt)[:BATCH])
                wait_s *= 2

    async def resync(self, only: Sequence[BudgetKey] = ()) -> int:
        """Correct the counters that this replica has used of late, or only these; returns how many.

        What is corrected is only what traffic cannot explain, and what has ended of what a budget was begun with:
        READINGS rounds, see `Differences`. A replica whose own events have yet to reach the ledger compares nothing.
        What is reserved for requests that run is not taken away, but for what a replica held that died, once the
        ledger has its end.
        """
        now_s = time.monotonic()
        self._used = {key: used for key, used in self._used.items() if now_s - used[1] <= USED_S}
        budgets = list(only) or [budget for budget, _ in self._used.values()]
        differences = Differences()
        try:
            for _ in range(READINGS if budgets else 0):
                before = await self._read(budgets)
                await asyncio.sleep(PAUSE_S)
                if self._ledger_lag_s() > PAUSE_S / 2:
                    return 0
                budgets = [budget for budget in budgets if budget in before]
                sums = await self._sums(budgets)
                differences.add(before, sums, await self._read(budgets))
            vain = await self._in_vain([each for each, nano in differences.wrong().items() if nano < 0])
            corrections = differences.corrections(vain)
            mended = await self._read(list(corrections), corrections)
        except (Unavailable, TimeoutError) as error:
            _log.info("budgets_not_compared", reason=type(error).__name__)
            return 0
        corrected = [each for each, seen in mended.items() if seen.mended > corrections[each].mended]
        for each in corrected:
            nano = corrections[each].nano_usd
            if nano:
                _log.warning("budget_corrected", subject=each.subject_id.hex, period=each.period.value, nano_usd=nano)
        return len(corrected)

    # --- asking

    def _learnt(self, budgets: Sequence[BudgetKey], task: asyncio.Task[None]) -> None:
        for budget in budgets:
            self._asking.pop(budget, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (Unavailable, TimeoutError)):
            _log.error("budgets_not_summed_up", exc_info=error)

    async def _learn(self, budgets: Sequence[BudgetKey]) -> None:
        try:
            sums = await self._sums(budgets)
        except (Unavailable, TimeoutError):
            self._away_until_s = time.monotonic() + AWAY_S
            raise
        for budget, state in sums.items():
            self._tell(redis_keys(budget)[0], state.spent + state.reserved)
        if not self._counters.available:
            return
        try:
            await self._counters.begin(sums)
        except LimiterUnavailable:
            return  # whoever asks again will see
        for budget, state in sums.items():
            self._watch(budget, state.reserved)
        if any(state.reserved for state in sums.values()):
            self._begun.set()

    async def _sums(self, budgets: Sequence[BudgetKey]) -> dict[BudgetKey, BudgetState]:
        sums: dict[BudgetKey, BudgetState] = {}
        for start in range(0, len(budgets), BATCH):
            batch = budgets[start : start + BATCH]
            async with asyncio.timeout(SUM_S_MAX):
                amounts = await self._spending.spent(batch)
            sums.update(zip(batch, map(_nano, amounts), strict=True))
        return sums

    async def _read(
        self, budgets: Sequence[BudgetKey], corrections: Mapping[BudgetKey, Correction] | None = None
    ) -> dict[BudgetKey, Reading]:
        """Correct, and return those budgets that Redis has."""
        seen = await self._counters.read(budgets, corrections or {})
        for budget in budgets:
            reading = seen.get(budget)
            self._watch(budget, reading.rebuilt if reading else 0)
            if reading:
                self._tell(redis_keys(budget)[0], reading.total)
        return seen

    async def _in_vain(self, budgets: Sequence[BudgetKey]) -> dict[BudgetKey, list[str]]:
        """Return what is held of budgets by requests whose replica died, as Redis has it: "event amount"."""
        held = await self._counters.held(budgets)
        async with asyncio.timeout(SUM_S_MAX):
            reaped = await self._spending.reaped([event for each in held.values() for event in each])
        return {budget: [each[event] for event in each.keys() & reaped] for budget, each in held.items()}

    def _watch(self, budget: BudgetKey, rebuilt: int) -> None:
        self._rebuilt.pop(budget, None)
        if rebuilt and len(self._rebuilt) < REBUILT_MAX:
            self._rebuilt[budget] = None  # as the last, so that all have their turn

    def _tell(self, key: str, total: int) -> None:
        self._told[key] = total
        if len(self._told) > BUDGETS_MAX:
            del self._told[next(iter(self._told))]


def _nano(spent: Spent) -> BudgetState:
    closed = nano_usd(spent.closed)
    return BudgetState(closed, min(nano_usd(spent.open), NANO_USD_MAX - closed))


def _unknown() -> BudgetUnknown:
    return BudgetUnknown("what is left of the budget cannot be told now", retry_after_s=1.0)
