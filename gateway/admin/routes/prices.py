"""Prices over HTTP: read by everybody who is signed in, set by the platform's administrator."""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.admin.page import ROWS_MAX
from gateway.admin.prices import PriceRow, list_prices, parse_effective_from, parse_price, set_price
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Wanted

router = APIRouter(prefix="/prices", tags=["prices"], route_class=AdminRoute)

_Usd: TypeAlias = Annotated[str, Field(max_length=40, description='US dollars as exact decimal text such as "0.20".')]


class NewPrice(Wanted):
    """Rates in US dollars per million tokens, `request` per request, in force `from` a moment on (default: now).

    `cached_input` left out costs what `input` does, `reasoning` what `output` does.
    """

    model: Annotated[str, Field(description="A model's name in penstock.yaml, no alias.")]
    input: _Usd
    output: _Usd
    cached_input: _Usd | None = None
    reasoning: _Usd | None = None
    request: _Usd | None = None
    since: Annotated[str | None, Field(alias="from", max_length=40)] = None
    unchecked_model: bool = False


@dataclass(frozen=True, slots=True)
class PriceSet(PriceRow):
    """A price that was set. `rerate_since`: events since then were written at another price, until they are rerated.

    `is_first`: the model had no price at all.
    """

    rerate_since: dt.datetime | None
    is_first: bool


class Prices(BaseModel):
    """One page of prices, by id. `next_after` is null on the last page."""

    data: list[PriceRow]
    next_after: int | None


@router.get("", operation_id="list_prices")
async def index(
    admin: AdminDep,
    model: Annotated[str | None, Query(max_length=200, description="Of this model alone.")] = None,
    past: Annotated[bool, Query(description="Also those no longer in force.")] = False,  # noqa: FBT002 - a query
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX, description="How many rows at most.")] = 100,
    after: Annotated[int | None, Query(ge=0, description="The `next_after` of the page before.")] = None,
) -> Prices:
    """List prices: those in force and those to come, by id."""
    found = await list_prices(admin.db, dt.datetime.now(dt.UTC), model=model, past=past)
    rest = sorted((row for row in found if after is None or row.id > after), key=lambda row: row.id)
    return Prices(data=rest[:limit], next_after=rest[limit - 1].id if len(rest) > limit else None)


@router.post("", status_code=201, operation_id="set_price")
async def set_(admin: AdminDep, wanted: NewPrice) -> PriceSet:
    """Set a price, which is in force until the next one by date. For the platform's administrator.

    A request costs what is in force when it is opened. A price of the past changes nothing that is written: for that,
    there is `penstock ledger rerate`.
    """
    price = parse_price(
        wanted.input,
        wanted.output,
        cached_input=wanted.cached_input,
        reasoning=wanted.reasoning,
        request=wanted.request,
    )
    moment = parse_effective_from(wanted.since, dt.datetime.now(dt.UTC))
    admin.scope.require_platform("set prices")
    admin.control.check_models([wanted.model], param="model", unchecked=wanted.unchecked_model)
    made = await set_price(admin.db, admin.scope, wanted.model, price, since=moment)
    return PriceSet(**asdict(made.price), rerate_since=made.rerate_since, is_first=made.is_first)
