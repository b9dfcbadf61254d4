"""A bucket store that answers as told, callers and calls to admit, and a clock to move by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admit.admitter import Admitter
from gateway.admit.bucket_store import BucketStore, Granted
from gateway.admit.local import LocalBuckets
from gateway.admit.redis_single import RedisSingle
from gateway.domain.call import Call, Endpoint
from gateway.observe.metrics import Metrics
from gateway.storage.redis import open_redis
from gateway.units import new_event_id

if TYPE_CHECKING:
    from gateway.admit.admitter import AwayPolicy
    from gateway.admit.bucket import Refusal, UsageVector
    from gateway.admit.policy import BucketSet
    from gateway.domain.config import ModelConfig
    from gateway.errors import LimiterUnavailable


class Store(BucketStore):
    """Answers each reservation with `answer`, full buckets by default; remembers what it was asked and told."""

    available = True

    def __init__(self, metrics: Metrics) -> None:
        client = open_redis("redis://127.0.0.1:1", 0.01)  # connects at its first command, which never comes
        super().__init__(RedisSingle(client, timeout_s=0.01, metrics=metrics), reservation_ttl_s=60, metrics=metrics)
        self.answer: Refusal | LimiterUnavailable | list[int] | None = None
        self.reserved: list[UsageVector] = []
        self.settled: list[tuple[str, UsageVector]] = []

    async def reserve(self, event_id: str, buckets: BucketSet, usage: UsageVector) -> Granted | Refusal:
        """Answer."""
        del event_id
        self.reserved.append(usage)
        answer = self.answer
        if answer is None:
            return Granted([int(bucket.capacity) for bucket in buckets.buckets])
        if isinstance(answer, list):
            return Granted(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def settle_soon(self, event_id: str, buckets: BucketSet, used: UsageVector) -> None:
        """Take note."""
        del buckets
        self.settled.append((event_id, used))


@dataclass
class Desk:
    """An admitter with all that it stands on."""

    store: Store
    local: LocalBuckets
    metrics: Metrics
    admitter: Admitter

    def decisions(self, decision: str) -> float:
        """Return how often it was decided this way."""
        labels = {"decision": decision}
        return self.metrics.registry.get_sample_value("penstock_limiter_decisions_total", labels) or 0.0


def make_desk(away_policy: AwayPolicy = "local", *, replicas: int = 1) -> Desk:
    """Return an admitter on a scripted store."""
    metrics = Metrics()
    store, buckets = Store(metrics), LocalBuckets(lambda: replicas)
    return Desk(store, buckets, metrics, Admitter(store, buckets, away_policy=away_policy, metrics=metrics))


def call(
    model: ModelConfig,
    *,
    body: bytes = b"x" * 400,
    output_max: int | None = 100,
    choices: int = 1,
    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS,
) -> Call:
    """Return a call; by default its prompt is estimated at 100 tokens, and its completion."""
    return Call(
        event_id=new_event_id(),
        endpoint=endpoint,
        requested_model=model.name,
        model=model,
        fields={},
        body=body,
        stream=False,
        usage_wanted=False,
        output_max=output_max,
        choices=choices,
        session=None,
        started_s=0.0,
    )
