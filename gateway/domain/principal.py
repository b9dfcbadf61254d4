"""Who is calling: the tenant that an API key stands for, with every limit that applies to it.

Built by `gateway.authenticate` from one row set of Postgres, cached there, and read by all later stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.units import format_usd

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.addresses import Network
    from gateway.units import PicoUsd


class Level(StrEnum):
    """What a limit is attached to, widest first. A model's own limits, over all tenants, are of the deployment."""

    DEPLOYMENT = "deployment"
    ORGANIZATION = "organization"
    TEAM = "team"
    USER = "user"
    KEY = "key"


TENANT_LEVELS = (Level.ORGANIZATION, Level.TEAM, Level.USER, Level.KEY)


class LimitUnit(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


class BudgetPeriod(StrEnum):
    """What a budget is for. Days begin at midnight UTC, weeks on Monday, months on the first; a session has no end."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    SESSION = "session"


CALENDAR_PERIODS = (BudgetPeriod.DAY, BudgetPeriod.WEEK, BudgetPeriod.MONTH)


@dataclass(frozen=True, slots=True)
class Limit:
    """A continuous token bucket's size: `burst` at most at once, refilled with `per_minute` / 60 each second.

    `model` narrows the limit to one model name of penstock.yaml (None: any model). `burst` is the bucket's capacity in
    the same unit as `per_minute`, which it equals unless set.
    """

    level: Level
    subject_id: UUID
    unit: LimitUnit
    per_minute: int
    burst: int
    model: str | None = None

    @property
    def name(self) -> str:
        """How a refusal names this limit: `team tokens per minute`."""
        return f"{self.level} {self.unit} per minute{_narrowed(self.model)}"


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many requests may be in flight at once. `model` narrows it to one model name of penstock.yaml."""

    level: Level
    subject_id: UUID
    requests: int
    model: str | None = None

    @property
    def name(self) -> str:
        """How a refusal names this limit: `team concurrent requests`."""
        return f"{self.level} concurrent requests{_narrowed(self.model)}"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent in a period, or by each session. `model` narrows it to one model name of penstock.yaml.

    `stops_streams`: a stream is stopped when what was left for it is spent; otherwise nothing begins that could cost
    more than what is left.
    """

    level: Level
    subject_id: UUID
    period: BudgetPeriod
    amount: PicoUsd
    stops_streams: bool = False
    model: str | None = None

    @property
    def name(self) -> str:
        """How a refusal names this budget: `team budget per month`, `session budget of 5.00 USD`."""
        if self.period is BudgetPeriod.SESSION:
            return f"session budget of {_with_cents(self.amount)} USD{_narrowed(self.model)}"
        return f"{self.level} budget per {self.period}{_narrowed(self.model)}"


@dataclass(frozen=True, slots=True)
class OutputBound:
    """How many tokens one answer may have at most. `model` narrows it to one model name of penstock.yaml."""

    tokens: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `user_*` are None for a service key; names are for people and metric labels."""

    organization_id: UUID
    organization: str
    team_id: UUID
    team: str
    user_id: UUID | None
    user: str | None
    key_id: UUID
    key_public_id: str
    limits: tuple[Limit, ...] = ()
    concurrency_limits: tuple[ConcurrencyLimit, ...] = ()
    budgets: tuple[Budget, ...] = ()
    output_bounds: tuple[OutputBound, ...] = ()
    models_allowed: frozenset[str] | None = None
    """Model names (never aliases) that the key may use; None means all."""
    addresses_allowed: tuple[Network, ...] | None = None
    """Networks that the key may be used from; None means any."""
    expires_at_s: float | None = None
    """Unix time after which the key is refused, checked locally on every request."""

    def may_use(self, model: str) -> bool:
        """Return whether the key may use the model called `model` in penstock.yaml."""
        return self.models_allowed is None or model in self.models_allowed


def _with_cents(amount: PicoUsd) -> str:
    whole, _, fraction = format_usd(amount).partition(".")
    return f"{whole}.{fraction:0<2}"


def _narrowed(model: str | None) -> str:
    return f" for {model}" if model else ""
