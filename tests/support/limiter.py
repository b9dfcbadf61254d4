"""Replicas' limiters in this process: all of `gateway.admit` on a real Redis, with a ledger and prices as told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admit.admitter import Admitter
from gateway.admit.bucket_store import BucketStore
from gateway.admit.budgets import BudgetBook
from gateway.admit.local import LocalBuckets
from gateway.admit.redis_cluster import scripts_on
from gateway.observe.metrics import Metrics
from gateway.storage.redis import RedisClients
from tests.support.spending import Books, Prices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.admit.admitter import AwayPolicy
    from gateway.settle.price import EffectivePrice

PATIENCE_S = 10.0


@dataclass
class Limiter:
    """One replica's."""

    store: BucketStore
    book: BudgetBook
    books: Books
    admitter: Admitter
    metrics: Metrics

    def decisions(self, decision: str) -> float:
        """Return how often it was decided this way."""
        labels = {"decision": decision}
        return self.metrics.registry.get_sample_value("penstock_limiter_decisions_total", labels) or 0.0

    async def quiet(self) -> None:
        """Wait until nothing is on its way to Redis."""
        await self.store.redis.close()


@asynccontextmanager
async def limiter(
    url: str,
    *,
    price: EffectivePrice | None = None,
    spent: int = 0,
    timeout_s: float = PATIENCE_S,
    policy: AwayPolicy = "local",
    replicas: int = 1,
) -> AsyncIterator[Limiter]:
    """Yield a replica's limiter whose ledger knows `spent` pico-USD of each budget, and which watches over Redis."""
    metrics, books = Metrics(), Books(spent)
    clients = RedisClients(url, timeout_s)
    store = BucketStore(
        scripts_on(clients, timeout_s=timeout_s, metrics=metrics), reservation_ttl_s=600, metrics=metrics
    )
    book = BudgetBook(store.redis, books, lambda: 0.0, store.reservation_ttl_s)
    admitter = Admitter(store, LocalBuckets(lambda: replicas), book, Prices(price), away_policy=policy, metrics=metrics)
    watching = asyncio.ensure_future(store.run())
    try:
        yield Limiter(store, book, books, admitter, metrics)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await store.close()
        await clients.aclose()
