"""Principals, models and bucket sets for tests of admission."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.admit.policy import BucketSet, bucket_set
from gateway.domain.config import ModelConfig, TokenWeights
from gateway.domain.principal import Level, Limit, LimitUnit, Principal

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = TokenWeights()


def limit(
    unit: LimitUnit, per_minute: int, *, burst: int | None = None, level: Level = Level.KEY, model: str | None = None
) -> Limit:
    """Return a limit of a subject of its own."""
    return Limit(level, uuid4(), unit, per_minute, burst or per_minute, model)


def requests(per_minute: int, **options: object) -> Limit:
    """Return a limit of requests; `options` as `limit` takes them."""
    return limit(LimitUnit.REQUESTS, per_minute, **options)  # type: ignore[arg-type] # passed on as they are


def tokens(per_minute: int, **options: object) -> Limit:
    """Return a limit of tokens; `options` as `limit` takes them."""
    return limit(LimitUnit.TOKENS, per_minute, **options)  # type: ignore[arg-type] # passed on as they are


def principal(*limits: Limit) -> Principal:
    """Return a caller of an organization of its own with these limits."""
    return Principal(uuid4(), "org", uuid4(), "team", uuid4(), "user", uuid4(), "publicid", limits=limits)


def model(name: str = "m", *, weights: TokenWeights = PLAIN) -> ModelConfig:
    """Return a model."""
    return ModelConfig(name=name, pool="p", upstream=name, weights=weights)


def buckets(*limits: Limit, weights: TokenWeights = PLAIN) -> BucketSet:
    """Return the buckets of a caller with these limits."""
    return bucket_set(principal(*limits), model(weights=weights))


def levels_of(stored: Sequence[bytes | None]) -> list[float | None]:
    """Return the levels in stored buckets."""
    return [None if text is None else float(text.split()[0]) for text in stored]
