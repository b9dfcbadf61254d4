"""What one request asks of one set of limits, and what it was answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admit.bucket import Refusal, UsageVector
    from gateway.admit.budget_keys import PeriodKeys
    from gateway.admit.policy import LimitSet


class Claim:
    """Amounts for one set of limits, of one request.

    `worst` is what it may cost at most, `least` what it must be given of that where a budget gives a stream what is
    left (`worst` for what is no stream), both in nano-USD. `session` is what the client calls its session, if it does.
    """

    __slots__ = ("budget_keys", "event_id", "least", "limits", "periods", "taken", "usage", "worst")

    def __init__(
        self,
        event_id: UUID,
        limits: LimitSet,
        usage: UsageVector,
        worst: int = 0,
        least: int = 0,
        session: str | None = None,
    ) -> None:
        self.event_id = event_id.hex
        self.limits = limits
        self.usage = usage
        self.worst = worst
        self.least = least
        self.taken = 0
        """Nano-USD that this replica's share was charged, where Redis was not asked."""
        self.periods: PeriodKeys | None = None
        """The budgets' periods, by when the request was opened: a UUIDv7 begins with its time. None without budgets."""
        self.budget_keys: tuple[str, ...] = ()
        if limits.budgets:
            self.periods = limits.period_keys(event_id.int >> 80, session)
            self.budget_keys = self.periods.redis


@dataclass(frozen=True, slots=True)
class Granted:
    """Levels left in each bucket, rounded down; nano-USD taken of each budget, and what is spent and reserved of it."""

    levels: list[int]
    taken: int = 0
    budgets: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Exceeded:
    """`index` is the budget that is spent, counted through buckets, leases and budgets: waiting cannot help."""

    index: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """These budgets, counted from 0 among the budgets, must be summed up first. Nothing was taken."""

    indexes: list[int]


Answer: TypeAlias = "Granted | Refusal | Exceeded | Unknown"
