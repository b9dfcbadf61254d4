"""Principals, models, limits and claims for tests of admission."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.admit.policy import LimitSet, limit_set
from gateway.domain.config import ModelConfig, ModelLimits, TokenWeights
from gateway.domain.principal import Budget, BudgetPeriod, ConcurrencyLimit, Level, Limit, LimitUnit, Principal
from gateway.units import PICO_USD_PER_USD, PicoUsd

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = TokenWeights()
UNLIMITED = ModelLimits()


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


def places(requests: int, *, level: Level = Level.KEY, model: str | None = None) -> ConcurrencyLimit:
    """Return a limit of concurrent requests of a subject of its own."""
    return ConcurrencyLimit(level, uuid4(), requests, model)


def budget(
    usd: float, *, period: BudgetPeriod = BudgetPeriod.DAY, level: Level = Level.KEY, stops: bool = False
) -> Budget:
    """Return a budget in US dollars of a subject of its own."""
    return Budget(level, uuid4(), period, PicoUsd(round(usd * PICO_USD_PER_USD)), stops)


AnyLimit = Limit | ConcurrencyLimit | Budget


def principal(*limits: AnyLimit) -> Principal:
    """Return a caller of an organization of its own with these limits."""
    return Principal(
        uuid4(),
        "org",
        uuid4(),
        "team",
        uuid4(),
        "user",
        uuid4(),
        "publicid",
        limits=tuple(each for each in limits if isinstance(each, Limit)),
        concurrency_limits=tuple(each for each in limits if isinstance(each, ConcurrencyLimit)),
        budgets=tuple(each for each in limits if isinstance(each, Budget)),
    )


def model(name: str = "m", *, weights: TokenWeights = PLAIN, limits: ModelLimits = UNLIMITED) -> ModelConfig:
    """Return a model."""
    return ModelConfig(name=name, pool="p", upstream=name, weights=weights, limits=limits)


def buckets(*limits: AnyLimit, weights: TokenWeights = PLAIN) -> LimitSet:
    """Return what a caller with these limits must pass."""
    return limit_set(principal(*limits), model(weights=weights))


def levels_of(stored: Sequence[bytes | None]) -> list[float | None]:
    """Return the levels in stored buckets."""
    return [None if text is None else float(text.split()[0]) for text in stored]
