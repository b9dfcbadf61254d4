"""Notices budgets that are spent by half, by 80 % and wholly, within seconds: a duty of the leader.

It reads what was written to the ledger since it looked last, and knows of each budget how much may still be spent
before there is something to tell. Only a budget that may have come that far is summed up, exactly. How far it has
looked is written down together with what it tells, so that the next leader goes on where this one ended; whatever is
noticed twice is told once (`events.Event.once`).
"""

from __future__ import annotations

import datetime as dt
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.admit.budget import period_start
from gateway.notify import budget_store
from gateway.notify.budget_store import PERIODS
from gateway.notify.events import THRESHOLDS, budget_event
from gateway.notify.outbox_store import tell
from gateway.settle.spending import BUDGETS_MAX, sum_up
from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from gateway.domain.principal import BudgetPeriod
    from gateway.notify.budget_store import Rule, State
    from gateway.notify.events import Event
    from gateway.observe.webhooks import WebhookMetrics
    from gateway.storage.leader import Term
    from gateway.storage.postgres import Pool, PoolProxy
    from gateway.units import PicoUsd

LOOK_EVERY_S = 2.0
LOOK_S_MAX = 60.0

SUMMED_MAX = 5 * BUDGETS_MAX
"""Budgets summed up in one run; what is more comes with the next. More than all budgets of CHANGES_MAX rules."""

KNOWN_MAX = 400_000
"""Budgets of which is known how much may still be spent; when there are more, all are summed up anew."""

CLOCKS_APART_MAX = dt.timedelta(days=1)


class _Watched(NamedTuple):
    """One budget as it is: with another amount, or in another period, it is another."""

    rule_id: UUID
    period: BudgetPeriod
    start: dt.datetime
    amount: PicoUsd


_Candidates: TypeAlias = "dict[_Watched, Rule]"


class BudgetWatch:
    """The duty. What it knows of budgets counts for one term: before that, somebody else may have looked."""

    def __init__(self, pool: Pool, metrics: WebhookMetrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._term: Term | None = None
        self._left: dict[_Watched, int] = {}
        """Pico-USD that may still be spent of a budget before a threshold is reached; or less than that."""
        self._waiting: _Candidates = {}
        """Budgets that are to be summed up before anything more is read."""
        self._read_until = 0

    async def run(self, term: Term) -> None:
        """Look once. Raises what asyncpg raises when Postgres is away: nothing was told, all is looked at again."""
        if term is not self._term:
            self._term = term
            self._forget()
        async with term.connection() as own:
            at = await budget_store.state(own)
        if not at.watched and at.looked_until is None:
            self._forget()
            return  # nobody wants to know, which costs no connection of the pool
        try:
            async with borrowed(self._pool, LOOK_S_MAX) as connection, connection.transaction():
                told = await self._look(connection)
        except BaseException:
            self._forget()  # what was found is not told
            raise
        self._metrics.told(*told)

    async def _look(self, connection: PoolProxy) -> tuple[int, int]:
        """Tell what there is to tell and write down how far was looked; return as `tell` does."""
        at = await budget_store.state(connection)
        if not at.watched:
            self._forget()
            if at.looked_until is not None:
                await budget_store.move(connection, None)
            return 0, 0
        if not self._waiting:
            await self._read(connection, at)
        part = dict(islice(self._waiting.items(), SUMMED_MAX))
        told = await tell(connection, await self._sum_up(connection, part))
        for watched in part:
            del self._waiting[watched]
        if not self._waiting:
            await budget_store.move(connection, self._read_until)
        return told

    async def _read(self, connection: PoolProxy, at: State) -> None:
        """Find the budgets to be summed up, those that were changed first: they are not found again."""
        # A database that was restored into a server that has counted fewer transactions begins anew.
        looked = at.watermark if at.looked_until is None else min(at.looked_until, at.horizon)
        starts = {period: period_start(period, at.now.astimezone(dt.UTC).date()) for period in PERIODS}
        self._waiting = _all_of(await budget_store.take_changed(connection), starts)
        since, until = min(starts.values()), at.now + CLOCKS_APART_MAX
        for rule, day, cost in await budget_store.spent_since(connection, looked, since, until):
            self._count(rule, day, cost, starts)
        self._read_until = at.horizon

    def _forget(self) -> None:
        self._left.clear()
        self._waiting.clear()

    def _count(self, rule: Rule, day: dt.date, cost: int, starts: dict[BudgetPeriod, dt.datetime]) -> None:
        """Take what was spent on a day from what is left; what has nothing left is to be summed up.

        Rows whose transactions still ran beside others are read twice: what is left may be too little, never too much.
        """
        for period, amount in rule.amounts.items():
            if not amount or day < starts[period].date():
                continue
            watched = _Watched(rule.id, period, starts[period], amount)
            left = self._left.get(watched)
            if left is None or left <= cost:
                self._waiting[watched] = rule
            else:
                self._left[watched] = left - cost

    async def _sum_up(self, connection: PoolProxy, candidates: _Candidates) -> list[Event]:
        """Return what there is to tell of these budgets, and remember what is left of each."""
        crossed: list[tuple[_Watched, PicoUsd, int]] = []
        pairs = list(candidates.items())
        if len(self._left) + len(pairs) > KNOWN_MAX:
            self._left.clear()
        for start in range(0, len(pairs), BUDGETS_MAX):
            part = pairs[start : start + BUDGETS_MAX]
            keys = [rule.budget(watched.period, watched.start) for watched, rule in part]
            for (watched, _), spent in zip(part, await sum_up(connection, keys), strict=True):
                reached = [percent for percent in THRESHOLDS if spent.closed * 100 >= watched.amount * percent]
                crossed += ((watched, spent.closed, percent) for percent in reached)
                self._left[watched] = _until_next(watched.amount, spent.closed, len(reached))
        names = await budget_store.named(connection, {watched.rule_id for watched, _, _ in crossed})
        return [
            budget_event(
                names[watched.rule_id],
                candidates[watched].budget(watched.period, watched.start),
                watched.amount,
                spent,
                reason="spent",
                threshold=percent,
            )
            for watched, spent, percent in crossed
            if watched.rule_id in names  # not deleted meanwhile
        ]


def _all_of(rules: Iterable[Rule], starts: dict[BudgetPeriod, dt.datetime]) -> _Candidates:
    """Return all budgets of these rules but for those of nothing at all, which nobody can spend a part of."""
    return {
        _Watched(rule.id, period, starts[period], amount): rule
        for rule in rules
        for period, amount in rule.amounts.items()
        if amount
    }


def _until_next(amount: PicoUsd, spent: PicoUsd, reached: int) -> int:
    """Return how much may be spent before the next threshold is reached; after the last one, more than anybody can."""
    if reached == len(THRESHOLDS):
        return 2**200
    return max(-(-amount * THRESHOLDS[reached] // 100) - spent, 0)
