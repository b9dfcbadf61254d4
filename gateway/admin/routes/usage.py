"""Usage over HTTP: a report in pages, summed as the caller asks, with the period that it covers."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import OrganizationQuery
from gateway.admin.times import is_relative
from gateway.admin.usage import ROWS_MAX, Grouping, Period, UsageRow, usage_page
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/usage", tags=["usage"], route_class=AdminRoute)

_Moment = Annotated[
    str | None, Query(max_length=40, description="2026-08-01, 2026-08-01T12:00Z (UTC), or 24h, 7d for that long ago.")
]
_Limit = Annotated[int, Query(ge=1, le=ROWS_MAX, description="How many rows at most.")]
_After = Annotated[
    str | None,
    Query(max_length=200, description="The `next_after` of the page before, beside its `since` and `until`."),
]


class UsageReport(BaseModel):
    """What was used from `since` up to `until`, one page, by id.

    `next_after` is null on the last page. The next one is had by the same call with `since`, `until` and `after` set to
    this page's `since`, `until` and `next_after`. A request that ends between two pages counts on the later ones alone.
    """

    by: Grouping
    since: dt.datetime
    until: dt.datetime
    data: list[UsageRow]
    next_after: str | None


@router.get("", operation_id="report_usage")
async def report(
    admin: AdminDep,
    by: Grouping = Grouping.ORG,
    organization: OrganizationQuery = None,
    since: _Moment = None,
    until: _Moment = None,
    limit: _Limit = ROWS_MAX,
    after: _After = None,
) -> UsageReport:
    """Report requests, tokens and exact cost; of the last 24 hours unless said otherwise."""
    if after is not None and (since is None or until is None or is_relative(since) or is_relative(until)):
        # The period would have moved on since the page before: rows of two periods would be taken for one report.
        raise InvalidRequest("after needs the since and until that the page before answered", param="after")
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    page = await usage_page(admin.db, admin.scope, by, period, limit=limit, after=after, organization=organization)
    return UsageReport(by=by, since=period.since, until=period.until, data=page.rows, next_after=page.next_after)
