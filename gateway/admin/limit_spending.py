"""Rules with what is spent of their budgets in the periods of now, for lists that people and scripts read."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from gateway.admin.database import Database
from gateway.admin.limits import LimitRule
from gateway.admit.budget import period_start
from gateway.domain.budget import BudgetKey
from gateway.domain.principal import CALENDAR_PERIODS, BudgetPeriod
from gateway.settle.spending import BUDGETS_MAX, sum_up
from gateway.units import format_usd


@dataclass(frozen=True, slots=True)
class LimitRuleSpent(LimitRule):
    """A rule, and of each budget what its period's requests have cost or may yet cost, as exact US dollars in text.

    Of sessions nothing is told: each has spent its own.
    """

    spent_day_usd: str | None
    spent_week_usd: str | None
    spent_month_usd: str | None
    spent_session_usd: None = None


def without_spending(rule: LimitRule) -> LimitRuleSpent:
    """Return a rule of which nothing is told but what it allows."""
    return LimitRuleSpent(**asdict(rule), spent_day_usd=None, spent_week_usd=None, spent_month_usd=None)


async def with_spending(db: Database, rules: Sequence[LimitRule], now: dt.datetime) -> list[LimitRuleSpent]:
    """Return the rules with what is spent at `now`, a time with a zone; null where there is no budget."""
    today = now.astimezone(dt.UTC).date()

    def key(rule: LimitRule, period: BudgetPeriod) -> BudgetKey:
        start = period_start(period, today)
        return BudgetKey(rule.organization_id, rule.level, rule.subject_id, rule.model, period, start)

    periods = CALENDAR_PERIODS
    wanted = [key(rule, period) for rule in rules for period in periods if rule.budget_usd(period) is not None]
    spent: dict[BudgetKey, str] = {}
    for start in range(0, len(wanted), BUDGETS_MAX):
        part = wanted[start : start + BUDGETS_MAX]
        spent |= zip(part, (format_usd(each.total) for each in await sum_up(db, part)), strict=True)
    return [
        LimitRuleSpent(
            **asdict(rule),
            spent_day_usd=spent.get(key(rule, BudgetPeriod.DAY)),
            spent_week_usd=spent.get(key(rule, BudgetPeriod.WEEK)),
            spent_month_usd=spent.get(key(rule, BudgetPeriod.MONTH)),
        )
        for rule in rules
    ]
