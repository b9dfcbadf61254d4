"""What replicas notice themselves, and pass on without waiting: revoked keys in use, requests refused for a budget.

A queue in memory and one task that writes to the outbox. While Postgres is away, or more is noticed than can be
written, it is dropped and counted: a notice is not worth a request's time, and who goes on is noticed again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import structlog

from gateway.errors import reason_of
from gateway.notify import budget_store, key_store
from gateway.notify.events import budget_event, key_event
from gateway.notify.outbox_store import tell
from gateway.settle.spending import sum_up
from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.budget import BudgetKey
    from gateway.notify.events import Event
    from gateway.observe.webhooks import WebhookMetrics
    from gateway.storage.postgres import Pool, PoolProxy

QUEUE_MAX = 1000
"""Notices that wait to be written."""
BATCH_MAX = 100
"""Notices written in one transaction."""
WRITE_S_MAX = 5.0

BUDGET_INTERVAL_S = 60.0
"""How often one budget is passed on by a replica, however many requests are refused for it."""
BUDGETS_MAX = 10_000

_log = structlog.get_logger("penstock.notices")


@dataclass(frozen=True, slots=True)
class RevokedUse:
    """Somebody has shown a revoked key."""

    organization_id: UUID
    key_id: UUID
    address: str
    at: dt.datetime


class Notices:
    """Takes notices from the path of requests, which never waits for it. `run` writes them down."""

    def __init__(self, pool: Pool, metrics: WebhookMetrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._queue: asyncio.Queue[RevokedUse | BudgetKey] = asyncio.Queue(QUEUE_MAX)
        self._budgets: OrderedDict[BudgetKey, float] = OrderedDict()
        self._trouble = ""

    def revoked_key_used(self, organization_id: UUID, key_id: UUID, public_id: str, address: str) -> None:
        """Somebody at this address has shown a revoked key."""
        del public_id  # the database has it, and the key's name
        self._put(RevokedUse(organization_id, key_id, address, dt.datetime.now(dt.UTC)))

    def budget_refused(self, budget: BudgetKey) -> None:
        """A request was refused for what is left of a budget."""
        if budget.period not in budget_store.PERIODS:
            return
        now_s = time.monotonic()
        if now_s - self._budgets.get(budget, -BUDGET_INTERVAL_S) < BUDGET_INTERVAL_S:
            return
        self._budgets[budget] = now_s
        self._budgets.move_to_end(budget)
        while len(self._budgets) > BUDGETS_MAX:
            self._budgets.popitem(last=False)
        self._put(budget)

    @property
    def waiting(self) -> int:
        """How many notices wait to be written."""
        return self._queue.qsize()

    async def run(self) -> None:
        """Write down what was noticed, until cancelled."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH_MAX and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                async with borrowed(self._pool, WRITE_S_MAX) as connection, connection.transaction():
                    told = await tell(connection, await _events(connection, batch))
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                self._metrics.lost("postgres_away", len(batch))
                self._say(reason_of(error))
            else:
                self._metrics.told(*told)
                self._say("")

    def _put(self, notice: RevokedUse | BudgetKey) -> None:
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self._metrics.lost("queue_full", 1)

    def _say(self, trouble: str) -> None:
        """Log why notices are lost, when it changes."""
        if trouble and trouble != self._trouble:
            _log.warning("notices_lost", reason=trouble)
        self._trouble = trouble


async def _events(connection: PoolProxy, batch: list[RevokedUse | BudgetKey]) -> list[Event]:
    """Return what there is to tell of these notices: nothing of what nobody wants to hear, or is gone meanwhile."""
    uses = {notice.key_id: notice for notice in batch if isinstance(notice, RevokedUse)}
    budgets = list(dict.fromkeys(notice for notice in batch if not isinstance(notice, RevokedUse)))
    events = [
        key_event(key, uses[key.id].address, uses[key.id].at)
        for key in await key_store.revoked(connection, list(uses.values()))
    ]
    return events + await _refused(connection, budgets)


async def _refused(connection: PoolProxy, budgets: list[BudgetKey]) -> list[Event]:
    rules = await budget_store.rules_of(connection, budgets)
    by_subject = {(rule.level, rule.subject_id, rule.model): rule for rule in rules}
    found = [
        (budget, rule)
        for budget in budgets
        if (rule := by_subject.get((budget.level, budget.subject_id, budget.model))) and budget.period in rule.amounts
    ]
    if not found:
        return []
    names = await budget_store.named(connection, {rule.id for _, rule in found})
    sums = await sum_up(connection, [budget for budget, _ in found])
    return [
        budget_event(names[rule.id], budget, rule.amounts[budget.period], spent.closed, reason="refused", threshold=100)
        for (budget, rule), spent in zip(found, sums, strict=True)
        if rule.id in names
    ]
