"""Usage over HTTP: one report, summed as the caller asks, with the period that it covers."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.routes.context import ControlDep, OrganizationQuery, ScopeDep, Shown
from gateway.admin.usage import Grouping, Period, usage_report

router = APIRouter(prefix="/usage", tags=["usage"])

_Moment = Annotated[
    str | None, Query(max_length=40, description="2026-08-01, 2026-08-01T12:00Z (UTC), or 24h, 7d for that long ago.")
]


class UsageShown(Shown):
    """One row. `cost_usd` is an exact decimal number; `estimated` counts requests with estimated tokens."""

    id: str | None
    name: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: str
    estimated: int


class UsageReport(BaseModel):
    """What was used from `since` up to `until`, the most expensive first."""

    by: Grouping
    since: dt.datetime
    until: dt.datetime
    data: list[UsageShown]


@router.get("", operation_id="report_usage")
async def report(
    control: ControlDep,
    scope: ScopeDep,
    by: Grouping = Grouping.ORG,
    organization: OrganizationQuery = None,
    since: _Moment = None,
    until: _Moment = None,
) -> UsageReport:
    """Report requests, tokens and exact cost; of the last 24 hours unless said otherwise."""
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    async with control.transaction() as db:
        rows = await usage_report(db, scope, by, period, organization=organization)
    shown = [UsageShown.model_validate(row) for row in rows]
    return UsageReport(by=by, since=period.since, until=period.until, data=shown)
