"""Budgets in Redis: begun with what Postgres sums up, and corrected against it now and then.

Redis forgets, so a counter is a cache of the ledger. A budget whose counter is missing is summed up before any request
is let through against it, once at a time; and every minute the counters that this replica has used are compared with
the ledger, for what was lost on the way: settles that never arrived, requests that were limited locally.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import msgspec
import structlog

from gateway.admit.budget import nano_usd
from gateway.admit.policy import redis_keys
from gateway.admit.script import Script
from gateway.errors import BudgetUnknown, LimiterUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.admit.claim import Claim
    from gateway.admit.leases import Redis
    from gateway.domain.budget import BudgetKey
    from gateway.units import PicoUsd

ANSWER_S_MAX = 2.0
"""How long a request waits for its budgets to be summed up."""

SUM_S_MAX = 10.0
"""How long summing up may take; others that ask meanwhile wait for the same answer."""

ASKING_MAX = 1_000
"""Budgets that are summed up at the same time."""

AWAY_S = 1.0
"""After the ledger could not be asked, nobody asks it again for so long."""

KEPT_S = 86_400
"""How long after its period's end a counter is kept, for what settles late."""

RESYNC_S = 60.0
USED_S = 300.0
"""Budgets that were used within it are compared."""

READINGS = 3
PAUSE_S = 1.0
"""Between reading Redis and asking the ledger: what has happened in Redis must have reached the ledger by then."""

BATCH = 100
BUDGETS_MAX = 20_000

HELD_MAX = 1_000
"""Of so many requests that hold a budget which is counted too high the ledger is asked whether they are dead."""

_NONE: Mapping[BudgetKey, Any] = {}
_log = structlog.get_logger("penstock.admit")


class Spending(Protocol):
    """What the ledger knows."""

    async def spent(self, budgets: Sequence[BudgetKey]) -> list[PicoUsd]:
        """Return what is spent of each budget: events and adjustments, and the most that open requests may cost.

        Raises Unavailable when the ledger cannot be asked.
        """
        ...

    async def reaped(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these were closed for a replica that died. Raises Unavailable as above."""
        ...


class BudgetBook:
    """What this replica knows of budgets. `told` is what Redis, or the ledger, said last."""

    def __init__(self, redis: Redis, spending: Spending, ledger_lag_s: Callable[[], float]) -> None:
        self._redis = redis
        self._spending = spending
        self._ledger_lag_s = ledger_lag_s
        self._begin = Script.load("begin_budgets")
        self._mend = Script.load("mend_budgets")
        self._held = Script.load("held_budgets")
        self._asking: dict[BudgetKey, asyncio.Task[None]] = {}
        self._away_until_s = 0.0
        self._told: dict[str, int] = {}
        self._used: dict[str, tuple[BudgetKey, float]] = {}
        self._soon = asyncio.Event()

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
        """Compare with the ledger every RESYNC_S, and soon after Redis has missed something."""
        while True:
            try:
                async with asyncio.timeout(RESYNC_S * random.uniform(0.9, 1.1)):  # noqa: S311 - replicas take turns
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            await self.resync()

    async def resync(self) -> int:
        """Correct the counters that this replica has used of late; returns how many.

        What is corrected is only what traffic cannot explain. Redis is read before and after the ledger is asked: when
        the sum lies between the two readings, nothing is amiss, else it lacks the difference to the nearer one. Of
        READINGS in a row, the smallest difference counts, and only when all point the same way. A replica whose own
        events have yet to reach the ledger compares nothing. What is reserved for requests that run is not taken away,
        but for what a replica held that died, once the ledger has its end.
        """
        now_s = time.monotonic()
        self._used = {key: used for key, used in self._used.items() if now_s - used[1] <= USED_S}
        budgets = [budget for budget, _ in self._used.values()]
        differences: list[dict[BudgetKey, int]] = []
        first: dict[BudgetKey, int] = {}
        try:
            for _ in range(READINGS if budgets else 0):
                before = await self._read(budgets)
                first = first or {budget: seen[1] for budget, seen in before.items()}
                await asyncio.sleep(PAUSE_S)
                if self._ledger_lag_s() > PAUSE_S / 2:
                    return 0
                budgets = [budget for budget in budgets if budget in before]
                sums = await self._sums(budgets)
                after = await self._read(budgets)
                differences.append({each: _beyond(sums[each], before[each][0], after[each][0]) for each in after})
            corrections = {
                budget: (smallest, first[budget])
                for budget in budgets
                if (smallest := _agreed([each.get(budget, 0) for each in differences]))
            }
            vain = await self._in_vain([each for each, (smallest, _) in corrections.items() if smallest < 0])
            mended = await self._read(list(corrections), corrections, vain)
        except (Unavailable, TimeoutError) as error:
            _log.info("budgets_not_compared", reason=type(error).__name__)
            return 0
        corrected = [each for each, (_, times) in mended.items() if times > corrections[each][1]]
        for each in corrected:
            nano = corrections[each][0]
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
        for budget, total in sums.items():
            self._tell(redis_keys(budget)[0], total)
        if not self._redis.available:
            return
        for batch in _batches(budgets):
            begun = [(sums[each], int((each.period_end.timestamp() + KEPT_S) * 1000)) for each in batch]
            try:
                await self._call(self._begin, [redis_keys(each)[0] for each in batch], begun)
            except LimiterUnavailable:
                return  # whoever asks again will see

    async def _sums(self, budgets: Sequence[BudgetKey]) -> dict[BudgetKey, int]:
        sums: dict[BudgetKey, int] = {}
        for start in range(0, len(budgets), BATCH):
            batch = budgets[start : start + BATCH]
            async with asyncio.timeout(SUM_S_MAX):
                amounts = await self._spending.spent(batch)
            sums.update(zip(batch, map(nano_usd, amounts), strict=True))
        return sums

    async def _read(
        self,
        budgets: Sequence[BudgetKey],
        corrections: Mapping[BudgetKey, tuple[int, int]] = _NONE,
        vain: Mapping[BudgetKey, list[str]] = _NONE,
    ) -> dict[BudgetKey, tuple[int, int]]:
        """Return spent and reserved, and how often it was corrected, of those budgets that Redis has."""
        seen: dict[BudgetKey, tuple[int, int]] = {}
        for batch in _batches(budgets):
            wanted = [(*corrections.get(each, (0, 0)), vain.get(each, [])) for each in batch]
            answer = await self._call(self._mend, [key for each in batch for key in redis_keys(each)], wanted)
            for budget, spent, reserved, mended in zip(batch, answer[::3], answer[1::3], answer[2::3], strict=True):
                if mended >= 0:
                    seen[budget] = (spent + reserved, mended)
                    self._tell(redis_keys(budget)[0], spent + reserved)
        return seen

    async def _in_vain(self, budgets: Sequence[BudgetKey]) -> dict[BudgetKey, list[str]]:
        """Return what is held of budgets by requests whose replica died, as Redis has it: "event amount"."""
        vain: dict[BudgetKey, list[str]] = {}
        for batch in _batches(budgets):
            answer = await self._call(self._held, [redis_keys(each)[1] for each in batch], HELD_MAX)
            held = [{UUID(member.split()[0].decode()): member.decode() for member in each} for each in answer]
            async with asyncio.timeout(SUM_S_MAX):
                reaped = await self._spending.reaped([event for each in held for event in each])
            for budget, each in zip(batch, held, strict=True):
                vain[budget] = [each[event] for event in each.keys() & reaped]
        return vain

    async def _call(self, script: Script, keys: Sequence[str], argument: object) -> Any:
        return await self._redis.call(script, (len(keys), *keys, msgspec.json.encode(argument)))

    def _tell(self, key: str, total: int) -> None:
        self._told[key] = total
        if len(self._told) > BUDGETS_MAX:
            del self._told[next(iter(self._told))]


def _batches(budgets: Sequence[BudgetKey]) -> list[list[BudgetKey]]:
    """Part budgets into calls of at most BATCH, each for one organization: its keys are on one slot."""
    by_organization: dict[object, list[BudgetKey]] = {}
    for budget in budgets:
        by_organization.setdefault(budget.organization_id, []).append(budget)
    return [each[start : start + BATCH] for each in by_organization.values() for start in range(0, len(each), BATCH)]


def _beyond(total: int, before: int, after: int) -> int:
    """Return by how much `total` lies outside of two readings: what is to be added to them."""
    low, high = min(before, after), max(before, after)
    return min(total - low, 0) or max(total - high, 0)


def _agreed(differences: Sequence[int]) -> int:
    """Return the smallest difference, 0 unless all point the same way."""
    if all(each > 0 for each in differences):
        return min(differences, default=0)
    if all(each < 0 for each in differences):
        return max(differences, default=0)
    return 0


def _unknown() -> BudgetUnknown:
    return BudgetUnknown("what is left of the budget cannot be told now", retry_after_s=1.0)
