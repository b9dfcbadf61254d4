"""Rows of `limit_rule`, as Postgres writes them in JSON, into what a principal is limited by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.domain.principal import Budget, BudgetPeriod, ConcurrencyLimit, Level, Limit, LimitUnit, OutputBound
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID


class _Row(msgspec.Struct, frozen=True):
    """The columns that are read; others pass unread."""

    level: str
    model: str
    requests_per_minute: int | None
    requests_burst: int | None
    tokens_per_minute: int | None
    tokens_burst: int | None
    input_tokens_per_minute: int | None
    input_tokens_burst: int | None
    output_tokens_per_minute: int | None
    output_tokens_burst: int | None
    concurrent_requests: int | None
    output_tokens_max: int | None
    budget_day_pico_usd: int | None
    budget_week_pico_usd: int | None
    budget_month_pico_usd: int | None
    budget_session_pico_usd: int | None
    budget_stops_streams: bool


class Limited(NamedTuple):
    """What rules say, by kind, each in the order of the rules."""

    rates: tuple[Limit, ...]
    concurrency: tuple[ConcurrencyLimit, ...]
    budgets: tuple[Budget, ...]
    output_bounds: tuple[OutputBound, ...]


_decode = msgspec.json.Decoder(list[_Row]).decode
_UNLIMITED = Limited((), (), (), ())


def limits_of(rules: str, subjects: Mapping[Level, UUID]) -> Limited:
    """Return what `rules`, a JSON list of rows, limit; `subjects` tells what each level is attached to."""
    if rules == "[]":
        return _UNLIMITED
    rates: list[Limit] = []
    concurrency: list[ConcurrencyLimit] = []
    budgets: list[Budget] = []
    output_bounds: list[OutputBound] = []
    for row in _decode(rules):
        level, model = Level(row.level), row.model or None
        subject = subjects[level]
        for unit, per_minute, burst in (
            (LimitUnit.REQUESTS, row.requests_per_minute, row.requests_burst),
            (LimitUnit.TOKENS, row.tokens_per_minute, row.tokens_burst),
            (LimitUnit.INPUT_TOKENS, row.input_tokens_per_minute, row.input_tokens_burst),
            (LimitUnit.OUTPUT_TOKENS, row.output_tokens_per_minute, row.output_tokens_burst),
        ):
            if per_minute is not None:
                rates.append(Limit(level, subject, unit, per_minute, burst or per_minute, model))
        for period, amount in (
            (BudgetPeriod.DAY, row.budget_day_pico_usd),
            (BudgetPeriod.WEEK, row.budget_week_pico_usd),
            (BudgetPeriod.MONTH, row.budget_month_pico_usd),
            (BudgetPeriod.SESSION, row.budget_session_pico_usd),
        ):
            if amount is not None:
                budgets.append(Budget(level, subject, period, PicoUsd(amount), row.budget_stops_streams, model))
        if row.concurrent_requests is not None:
            concurrency.append(ConcurrencyLimit(level, subject, row.concurrent_requests, model))
        if row.output_tokens_max is not None:
            output_bounds.append(OutputBound(row.output_tokens_max, model))
    return Limited(tuple(rates), tuple(concurrency), tuple(budgets), tuple(output_bounds))
