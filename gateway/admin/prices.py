"""Prices: what a token of a model costs from which moment on.

They are added and never changed: events refer to them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import asyncpg

from gateway.admin.names import quoted
from gateway.admin.times import parse_moment
from gateway.domain.config import Price
from gateway.errors import Conflict, InvalidRequest
from gateway.settings.rates import per_request, per_token
from gateway.settle.price import INSERT_PRICE, RATES, effective
from gateway.units import PICO_USD_PER_USD, PicoUsd, format_usd

if TYPE_CHECKING:
    from gateway.admin.database import Database
    from gateway.admin.scope import Scope

FUTURE_PRICES_MAX = 100
"""How many prices of one model may be dated in the future: every replica keeps them."""

YEARS_AHEAD_MAX = 10
PAST_MIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LIST_ROWS_MAX = 100_000

_MILLION = 10**6

_LIST = f"""
    SELECT id, model, effective_from, {RATES}, source, created_at,
        lead(effective_from) OVER (PARTITION BY model ORDER BY effective_from) AS effective_until
    FROM model_price WHERE $1::text IS NULL OR model = $1
    ORDER BY model, effective_from LIMIT {LIST_ROWS_MAX}
"""  # noqa: S608 - made of constants


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price as it stands, in US dollars per million tokens (`request`: per request) as exact decimal numbers.

    In force from `effective_from` until, not including, `effective_until`; None: for good. `source` is `config` for
    what penstock.yaml gave, `admin` for what was set by hand.
    """

    id: int
    model: str
    effective_from: dt.datetime
    effective_until: dt.datetime | None
    input: str
    cached_input: str
    output: str
    reasoning: str
    request: str
    source: str
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class SetPrice:
    """A price that was set. `rerate_since`: events since then were written at another price, until they are rerated.

    `is_first`: the model had no price at all, so its name may be misspelt.
    """

    price: PriceRow
    rerate_since: dt.datetime | None
    is_first: bool


def parse_price(
    input: str,  # noqa: A002 - the name that it has in penstock.yaml
    output: str,
    *,
    cached_input: str | None = None,
    reasoning: str | None = None,
    request: str | None = None,
) -> Price:
    """Read rates as penstock.yaml has them: USD per million tokens, `request` in USD per request.

    `cached_input` left out costs what `input` does, `reasoning` what `output` does. Raises InvalidRequest naming the
    rate that is no plain decimal number, is too large or is finer than money is kept.
    """
    paid, answered = _rate(input, "input"), _rate(output, "output")
    return Price(
        input_pico_usd=paid,
        cached_input_pico_usd=paid if cached_input is None else _rate(cached_input, "cached_input"),
        output_pico_usd=answered,
        reasoning_pico_usd=answered if reasoning is None else _rate(reasoning, "reasoning"),
        request_pico_usd=PicoUsd(0) if request is None else _rate(request, "request"),
    )


def parse_effective_from(text: str | None, now: dt.datetime) -> dt.datetime | None:
    """Read the moment that a price is in force from; None is now. Raises InvalidRequest."""
    if text is None:
        return None
    moment = parse_moment(text, now, "from")
    if not PAST_MIN <= moment <= now + dt.timedelta(days=366 * YEARS_AHEAD_MAX):
        raise InvalidRequest(
            f"from must lie between {PAST_MIN:%Y-%m-%d} and {YEARS_AHEAD_MAX} years from now", param="from"
        )
    return moment


async def set_price(db: Database, scope: Scope, model: str, price: Price, *, since: dt.datetime | None) -> SetPrice:
    """Add a price that is in force from `since` (None: now) until the next one by date.

    Raises:
        InvalidRequest: for the model's name, or when too many prices are still to come.
        Conflict: the model has another price from that very moment.
    """
    scope.require_platform("set prices")
    _check_model(model)
    known = await db.fetchrow(
        """
        SELECT count(*) AS prices, count(*) FILTER (WHERE effective_from > clock_timestamp()) AS to_come,
            COALESCE($2, clock_timestamp()) < clock_timestamp() AS is_past
        FROM model_price WHERE model = $1
        """,
        model,
        since,
    )
    assert known is not None, "an aggregate has a row"
    if known["to_come"] >= FUTURE_PRICES_MAX:
        raise InvalidRequest(f"model {model} has {FUTURE_PRICES_MAX} prices to come already", param="model")
    try:
        row = await db.fetchrow(INSERT_PRICE, model, since, "admin", *astuple(price))
    except asyncpg.UniqueViolationError:
        raise Conflict(
            f"model {model} has a price from that very moment, and prices never change: choose a moment after it"
        ) from None
    assert row is not None, "INSERT ... RETURNING returns its row"
    (made,) = [each for each in await _rows(db, model) if each.id == row["id"]]
    return SetPrice(made, made.effective_from if since is not None and known["is_past"] else None, not known["prices"])


async def list_prices(db: Database, now: dt.datetime, *, model: str | None, past: bool) -> list[PriceRow]:
    """Return the prices in force at `now` and those to come, with `past` also those before, by model and date.

    They are everybody's to know, and of no tenant.
    """
    rows = await _rows(db, model)
    return [row for row in rows if past or row.effective_until is None or row.effective_until > now]


async def _rows(db: Database, model: str | None) -> list[PriceRow]:
    found = []
    for row in await db.fetch(_LIST, model):
        price = effective(row).price
        found.append(
            PriceRow(
                id=row["id"],
                model=row["model"],
                effective_from=row["effective_from"],
                effective_until=row["effective_until"],
                input=_usd_per_million(price.input_pico_usd),
                cached_input=_usd_per_million(price.cached_input_pico_usd),
                output=_usd_per_million(price.output_pico_usd),
                reasoning=_usd_per_million(price.reasoning_pico_usd),
                request=format_usd(price.request_pico_usd),
                source=row["source"],
                created_at=row["created_at"],
            )
        )
    return found


def _rate(text: str, name: str) -> PicoUsd:
    try:
        return per_request(text) if name == "request" else per_token(text)
    except ValueError as error:
        raise InvalidRequest(f"{name} {error}", param=name) from None


def _usd_per_million(pico_usd_per_token: PicoUsd) -> str:
    assert PICO_USD_PER_USD == _MILLION**2
    return format_usd(PicoUsd(pico_usd_per_token * _MILLION))


def _check_model(model: str) -> None:
    """Raise InvalidRequest unless penstock.yaml may have a model of this name; which ones it has is not known here."""
    if not 1 <= len(model) <= 200 or not model.isascii() or not model.isprintable() or " " in model:
        message = f"{quoted(model)} is no name of a model: 1 to 200 printable ASCII characters without spaces"
        raise InvalidRequest(message, param="model")
