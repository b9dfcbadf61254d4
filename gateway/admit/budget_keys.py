"""Budgets on one day, or of one session: what is asked of the ledger for each, and its two keys in Redis."""

from __future__ import annotations

import datetime as dt
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from gateway.admit.budget import period_start
from gateway.domain.budget import BudgetKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from gateway.domain.principal import Budget

SESSION_KEPT_S = 86_400
"""How long after its last use the counter of a session's budget is kept: one forgotten is summed up again, exactly."""

_SESSION_HASH_BYTES = 16
_EPOCH_ORDINAL = 719_163
"""Of 1970-01-01 among the days that `datetime` counts."""


class PeriodKeys(NamedTuple):
    """Their sums in Postgres, and in Redis two keys each: its hash, and what is held of it. `day` counts from 1970."""

    day: int
    sums: tuple[BudgetKey, ...]
    redis: tuple[str, ...]

    def and_those(self, others: PeriodKeys) -> PeriodKeys:
        """Return these, and others after them."""
        return PeriodKeys(self.day, self.sums + others.sums, self.redis + others.redis)


def period_keys(organization_id: UUID, budgets: Sequence[Budget], day: int, session: str | None = None) -> PeriodKeys:
    """Return the keys of an organization's budgets on a day, counted from 1970, or of those of a session."""
    date = dt.date.fromordinal(_EPOCH_ORDINAL + day)
    sums = tuple(
        BudgetKey(
            organization_id,
            budget.level,
            budget.subject_id,
            budget.model,
            budget.period,
            period_start(budget.period, date),
            session,
        )
        for budget in budgets
    )
    return PeriodKeys(day, sums, tuple(key for each in sums for key in redis_keys(each)))


def redis_keys(budget: BudgetKey) -> tuple[str, str]:
    """Return the Redis keys of a budget: its hash, and what is held of it.

    Of a session they hold a hash: what a client calls it is of any length, and nobody else's business.
    """
    when = f"{budget.period_start:%Y%m%d}" if budget.session is None else _hashed(budget.session)
    suffix = f"{budget.subject_id.hex}:{budget.period}:{when}:{budget.model or ''}"
    tag = budget.organization_id.hex
    return f"pst:{{{tag}}}:s:{suffix}", f"pst:{{{tag}}}:h:{suffix}"


def _hashed(session: str) -> str:
    return blake2b(session.encode(), digest_size=_SESSION_HASH_BYTES).hexdigest()
