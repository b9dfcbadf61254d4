"""A bucket store that answers as told, callers and calls to admit, and a clock to move by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admit.admitter import Admitter
from gateway.admit.bucket_store import BucketStore
from gateway.admit.budgets import BudgetBook
from gateway.admit.claim import Granted
from gateway.admit.local import LocalBuckets
from gateway.admit.redis_single import RedisSingle
from gateway.domain.call import Call, Endpoint
from gateway.observe.metrics import Metrics
from gateway.storage.redis import open_redis
from gateway.units import new_event_id
from tests.support.spending import Books, Prices

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admit.admitter import AwayPolicy
    from gateway.admit.bucket import UsageVector
    from gateway.admit.claim import Answer, Claim
    from gateway.domain.config import ModelConfig
    from gateway.errors import LimiterUnavailable


class Store(BucketStore):
    """Answers each reservation with `answer`, full buckets by default; remembers what it was asked and told."""

    available = True

    def __init__(self, metrics: Metrics) -> None:
        client = open_redis("redis://127.0.0.1:1", 0.01)  # connects at its first command, which never comes
        super().__init__(RedisSingle(client, timeout_s=0.01, metrics=metrics), reservation_ttl_s=60, metrics=metrics)
        self.answer: Answer | LimiterUnavailable | list[int] | None = None
        self.reserved: list[UsageVector] = []
        self.claims: list[Claim] = []
        self.settled: list[tuple[str, UsageVector]] = []
        self.costs: list[int] = []

    async def reserve(self, claim: Claim) -> Answer:
        """Answer."""
        self.reserved.append(claim.usage)
        self.claims.append(claim)
        answer = self.answer
        if answer is None:
            full = [int(bucket.capacity) for bucket in claim.limits.buckets]
            return Granted(full, claim.worst, [claim.worst for _ in claim.limits.budgets])
        if isinstance(answer, list):
            return Granted(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def settle_soon(self, claim: Claim, used: UsageVector, cost: int) -> None:
        """Take note."""
        self.settled.append((claim.event_id, used))
        self.costs.append(cost)


@dataclass
class Desk:
    """An admitter with all that it stands on."""

    store: Store
    local: LocalBuckets
    metrics: Metrics
    books: Books
    prices: Prices
    admitter: Admitter

    def decisions(self, decision: str) -> float:
        """Return how often it was decided this way."""
        labels = {"decision": decision}
        return self.metrics.registry.get_sample_value("penstock_limiter_decisions_total", labels) or 0.0


def make_desk(away_policy: AwayPolicy = "local", *, replicas: int = 1) -> Desk:
    """Return an admitter on a scripted store."""
    metrics = Metrics()
    store, buckets = Store(metrics), LocalBuckets(lambda: replicas)
    books, prices = Books(), Prices()
    budgets = BudgetBook(store.redis, books, lambda: 0.0, store.reservation_ttl_s)
    admitter = Admitter(store, buckets, budgets, prices, away_policy=away_policy, metrics=metrics)
    return Desk(store, buckets, metrics, books, prices, admitter)


def call(
    model: ModelConfig,
    *,
    body: bytes = b"x" * 400,
    output_max: int | None = 100,
    choices: int = 1,
    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS,
    stream: bool = False,
    event_id: UUID | None = None,
) -> Call:
    """Return a call; by default its prompt is estimated at 100 tokens, and its completion."""
    return Call(
        event_id=event_id or new_event_id(),
        endpoint=endpoint,
        requested_model=model.name,
        model=model,
        fields={},
        body=body,
        stream=stream,
        usage_wanted=False,
        output_max=output_max,
        choices=choices,
        session=None,
        started_s=0.0,
    )
