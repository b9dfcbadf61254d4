"""One budget in one of its periods, or of one session: what is asked of the ledger, what Redis has a counter for."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.domain.principal import BudgetPeriod
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.principal import Level


LEDGER_START = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Where the period of a session's budget starts: all that the session has ever cost counts."""


@dataclass(frozen=True, slots=True)
class BudgetKey:
    """What is spent of it is the cost of all requests of the subject that were opened in the period.

    `model` narrows it to one model name of penstock.yaml, as it was asked for (None: any model). `period_start` is a
    midnight in UTC, aware: of a Monday for weeks, of the first for months, LEDGER_START for sessions. `session` is what
    the client calls it, None for the other periods.
    """

    organization_id: UUID
    level: Level
    subject_id: UUID
    model: str | None
    period: BudgetPeriod
    period_start: dt.datetime
    session: str | None = None

    @property
    def period_end(self) -> dt.datetime:
        """The midnight at which the next period starts. A session's budget has none."""
        assert self.session is None, "a session has no end"
        if self.period is BudgetPeriod.DAY:
            return self.period_start + dt.timedelta(days=1)
        if self.period is BudgetPeriod.WEEK:
            return self.period_start + dt.timedelta(days=7)
        return (self.period_start.replace(day=1) + dt.timedelta(days=32)).replace(day=1)


class Spent(NamedTuple):
    """What the requests of a budget's period have cost, and what those that are still open may cost at most."""

    closed: PicoUsd
    open: PicoUsd

    @property
    def total(self) -> PicoUsd:
        """Both."""
        return PicoUsd(self.closed + self.open)
