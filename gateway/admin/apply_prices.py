"""Prices, brought to what a document declares. They are added and never change, so nothing is pruned here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.apply_plan import Run, at
from gateway.admin.names import quoted
from gateway.admin.prices import PriceRow, list_prices, parse_effective_from, parse_price, set_price
from gateway.errors import Conflict

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from gateway.admin.apply_document import DeclaredPrice
    from gateway.domain.config import Price

_RATES = ("input", "cached_input", "output", "reasoning", "request")


async def apply_prices(run: Run, declared: Sequence[DeclaredPrice]) -> None:
    """Add the prices that are declared and not there: without `from` in force now, else from that moment on."""
    if not declared:
        return
    now: dt.datetime = await run.db.fetchval("SELECT clock_timestamp()")
    rows = await list_prices(run.db, now, model=None, past=True)
    for number, wanted in enumerate(declared):
        with at("prices", number):
            await _apply(run, wanted, [row for row in rows if row.model == wanted.model], now)


async def _apply(run: Run, wanted: DeclaredPrice, rows: list[PriceRow], now: dt.datetime) -> None:
    price = parse_price(
        wanted.input,
        wanted.output,
        cached_input=wanted.cached_input,
        reasoning=wanted.reasoning,
        request=wanted.request,
    )
    current = _that_moment(rows, wanted.since) if wanted.since is not None else _in_force(rows, now)
    if current is not None and _price_of(current) == price:
        return
    if current is not None and wanted.since is not None:
        message = f"model {quoted(wanted.model)} has another price from that very moment, and prices never change"
        raise Conflict(f"{message}: choose a moment after it")
    run.scope.require_platform("set prices")
    run.check_models((wanted.model,))
    since = None if wanted.since is None else parse_effective_from(wanted.since.isoformat(), now)
    made = (await set_price(run.db, run.scope, wanted.model, price, since=since)).price
    after = {name: getattr(made, name) for name in _RATES}
    if wanted.since is not None:
        after["from"] = made.effective_from.isoformat()
    if current is None:
        run.created("price", (wanted.model,), after)
        return
    names = [name for name in after if getattr(current, name) != after[name]]
    before = {name: getattr(current, name) for name in names}
    run.changed("price", (wanted.model,), before, {name: after[name] for name in names})


def _in_force(rows: list[PriceRow], now: dt.datetime) -> PriceRow | None:
    started = [row for row in rows if row.effective_from <= now]
    return max(started, key=lambda row: row.effective_from, default=None)


def _that_moment(rows: list[PriceRow], moment: dt.datetime) -> PriceRow | None:
    return next((row for row in rows if row.effective_from == moment), None)


def _price_of(row: PriceRow) -> Price:
    return parse_price(
        row.input, row.output, cached_input=row.cached_input, reasoning=row.reasoning, request=row.request
    )
