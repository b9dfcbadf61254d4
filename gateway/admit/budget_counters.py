"""Budgets' counters in Redis: begun, read, and corrected, by scripts; what to correct is decided in `budgets.py`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from gateway.admit.budget_keys import SESSION_KEPT_S, redis_keys
from gateway.admit.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.admit.budget import BudgetState
    from gateway.admit.leases import Redis
    from gateway.domain.budget import BudgetKey

KEPT_S = 86_400
"""How long after its period's end a counter is kept, for what settles late."""

BATCH = 100
"""Budgets that one call tells of."""

HELD_MAX = 1_000
"""Of so many requests that hold a budget which is counted too high the ledger is asked whether they are dead."""

_REBUILT = b"rebuilt "
"""What the hold for all that was open when a budget was begun starts with; budgets.lua writes it."""


class Reading(NamedTuple):
    """A counter in nano-USD; `mended` is how often it was corrected.

    `rebuilt` is the part of `reserved` that is held for requests which were open when the budget was begun.
    """

    spent: int
    reserved: int
    mended: int
    rebuilt: int

    @property
    def total(self) -> int:
        """All that is not left."""
        return self.spent + self.reserved

    @property
    def own(self) -> int:
        """What requests hold that Redis knows one by one."""
        return self.reserved - self.rebuilt


class Correction(NamedTuple):
    """What to add to a counter that was corrected `mended` times, in nano-USD.

    `vain` are holds to let go, as Redis has them; `rebuilt_max` is what may stay held for requests of before.
    """

    nano_usd: int
    mended: int
    vain: list[str]
    rebuilt_max: int


_ONLY_READ = Correction(0, -1, [], 0)
_NONE: Mapping[BudgetKey, Correction] = {}


class BudgetCounters:
    """Calls the scripts. Each method raises LimiterUnavailable where Redis does not answer."""

    def __init__(self, redis: Redis, reservation_ttl_s: float) -> None:
        self._redis = redis
        self._ttl_ms = int(reservation_ttl_s * 1000)
        self._begin = Script.load("begin_budgets")
        self._mend = Script.load("mend_budgets")
        self._held = Script.load("held_budgets")

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._redis.available

    async def begin(self, sums: Mapping[BudgetKey, BudgetState]) -> None:
        """Begin those budgets that are not, with what is spent and what open requests hold."""
        for batch in _batches(list(sums)):
            ends = [int(_kept_until_s(each) * 1000) for each in batch]
            told = [(sums[each].spent, sums[each].reserved, end) for each, end in zip(batch, ends, strict=True)]
            await self._call(self._begin, [key for each in batch for key in redis_keys(each)], told, self._ttl_ms)

    async def read(
        self, budgets: Sequence[BudgetKey], corrections: Mapping[BudgetKey, Correction] = _NONE
    ) -> dict[BudgetKey, Reading]:
        """Correct budgets, where nobody has since they were read, and return those that Redis has."""
        seen: dict[BudgetKey, Reading] = {}
        for batch in _batches(budgets):
            wanted = [corrections.get(each, _ONLY_READ) for each in batch]
            answer = await self._call(self._mend, [key for each in batch for key in redis_keys(each)], wanted)
            readings = [Reading(*answer[start : start + 4]) for start in range(0, len(answer), 4)]
            seen.update((each, one) for each, one in zip(batch, readings, strict=True) if one.mended >= 0)
        return seen

    async def held(self, budgets: Sequence[BudgetKey]) -> dict[BudgetKey, dict[UUID, str]]:
        """Return by which requests budgets are held, with the hold as Redis has it: "event amount"."""
        held: dict[BudgetKey, dict[UUID, str]] = {}
        for batch in _batches(budgets):
            answer = await self._call(self._held, [redis_keys(each)[1] for each in batch], HELD_MAX)
            for budget, members in zip(batch, answer, strict=True):
                events = [member.decode() for member in members if not member.startswith(_REBUILT)]
                held[budget] = {UUID(event.split()[0]): event for event in events}
        return held

    async def _call(self, script: Script, keys: Sequence[str], argument: object, *more: int) -> Any:
        return await self._redis.call(script, (len(keys), *keys, msgspec.json.encode(argument), *more))


def _kept_until_s(budget: BudgetKey) -> float:
    """Return the Unix time until which a counter is kept; each use of a session's keeps it for longer."""
    return time.time() + SESSION_KEPT_S if budget.session is not None else budget.period_end.timestamp() + KEPT_S


def _batches(budgets: Sequence[BudgetKey]) -> list[list[BudgetKey]]:
    """Part budgets into calls of at most BATCH, each for one organization: its keys are on one slot."""
    by_organization: dict[object, list[BudgetKey]] = {}
    for budget in budgets:
        by_organization.setdefault(budget.organization_id, []).append(budget)
    return [each[start : start + BATCH] for each in by_organization.values() for start in range(0, len(each), BATCH)]
