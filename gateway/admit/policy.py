"""Which limits apply to a request, as the buckets to take from; pure, and worked out once per key and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.admit.bucket import Bucket, Weights
from gateway.domain.principal import Limit, LimitUnit

if TYPE_CHECKING:
    from gateway.domain.config import ModelConfig
    from gateway.domain.principal import Principal

_REQUESTS: Weights = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class BucketSet:
    """All buckets of one principal and model, with what Redis needs to know of them, encoded once.

    `tag` is the Redis Cluster hash tag: all keys of an organization live on one slot.
    """

    tag: str
    limits: tuple[Limit, ...]
    buckets: tuple[Bucket, ...]
    keys: tuple[str, ...]
    spec_json: bytes
    tightest_token_capacity: float | None

    def reservation_key(self, event_id: str) -> str:
        """Return the Redis key of one request's reservation."""
        return f"pst:{{{self.tag}}}:r:{event_id}"


def bucket_set(principal: Principal, model: ModelConfig) -> BucketSet:
    """Return the buckets that a request of `principal` for `model` must pass, widest level first."""
    weights = model.weights
    tokens: Weights = (0.0, weights.input, weights.cached_input, weights.output)
    limits = tuple(limit for limit in principal.limits if limit.model in (None, model.name))
    buckets = tuple(
        Bucket(
            capacity=float(limit.burst),
            refill_per_s=limit.per_minute / 60,
            weights=_REQUESTS if limit.unit is LimitUnit.REQUESTS else tokens,
        )
        for limit in limits
    )
    tag = principal.organization_id.hex
    keys = tuple(f"pst:{{{tag}}}:b:{limit.subject_id.hex}:{limit.unit}:{limit.model or ''}" for limit in limits)
    spec = [[bucket.capacity, bucket.refill_per_s, *bucket.weights] for bucket in buckets]
    capacities = [b.capacity for b, limit in zip(buckets, limits, strict=True) if limit.unit is LimitUnit.TOKENS]
    return BucketSet(
        tag=tag,
        limits=limits,
        buckets=buckets,
        keys=keys,
        spec_json=msgspec.json.encode(spec),
        tightest_token_capacity=min(capacities, default=None),
    )
