"""Usage over HTTP: reports summed, filtered and ordered as asked; as JSON in pages, as CSV or Parquet whole."""

import asyncio
import datetime as dt
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import OrganizationQuery
from gateway.admin.times import is_relative
from gateway.admin.usage import ROWS_MAX, Asked, Period, Report, UsageRow, groupings, usage_report
from gateway.admin.usage_files import MEDIA_TYPES, as_file
from gateway.admin.usage_filters import Filters
from gateway.admin.usage_sql import AFTER_CHARS_MAX, Bucket, Grouping, Order, ReportFormat
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/usage", tags=["usage"], route_class=AdminRoute)

_Moment = Annotated[
    str | None, Query(max_length=40, description="2026-08-01, 2026-08-01T12:00Z (UTC), or 24h, 7d for that long ago.")
]
_By = Annotated[
    str | None,
    Query(
        max_length=100,
        description="What to have a row for each of, one or several with commas: org, team, user, key, model, engine,"
        " session. Default: org, or nothing where there is a bucket.",
    ),
]
_Limit = Annotated[
    int | None, Query(ge=1, le=ROWS_MAX, description="How many rows at most. Default: of JSON by id 10000, else all.")
]
_After = Annotated[
    str | None,
    Query(max_length=AFTER_CHARS_MAX, description="The `next_after` of the page before, with its `since` and `until`."),
]
_Name = Annotated[str | None, Query(max_length=200)]


class UsageReport(BaseModel):
    """What was used from `since` up to `until`, as of `as_of`.

    By id, one page: `next_after` is null on the last one; the next one is had by the same call with `since`, `until`
    and `after` set to this page's `since`, `until` and `next_after`. A request that ends between two pages counts on
    the later ones alone. In any other order `next_after` is null, and `more` tells that there are more rows.
    """

    by: str
    bucket: Bucket | None
    order: Order
    since: dt.datetime
    until: dt.datetime
    as_of: dt.datetime
    rolled_up_at: dt.datetime | None
    data: list[UsageRow]
    next_after: str | None
    more: bool


def _filters(
    team: _Name = None,
    user: _Name = None,
    key: _Name = None,
    model: _Name = None,
    engine: _Name = None,
    session: _Name = None,
) -> Filters:
    return Filters(team, user, key, model, engine, session)


def _format(
    form: Annotated[
        ReportFormat | None, Query(alias="format", description="Default: what `Accept` asks for, else JSON.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> ReportFormat:
    """Return the format that is asked for: the first that we have of what the caller accepts."""
    if form is not None:
        return form
    types = {media_type: known for known, media_type in MEDIA_TYPES.items()}
    accepted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return next((types[part] for part in accepted if part in types), ReportFormat.JSON)


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {MEDIA_TYPES[form]: _BINARY for form in (ReportFormat.CSV, ReportFormat.PARQUET)}


@router.get("", operation_id="report_usage", response_model=UsageReport, responses={200: {"content": _FILES}})
async def report(
    admin: AdminDep,
    form: Annotated[ReportFormat, Depends(_format)],
    filters: Annotated[Filters, Depends(_filters)],
    by: _By = None,
    bucket: Bucket | None = None,
    organization: OrganizationQuery = None,
    since: _Moment = None,
    until: _Moment = None,
    order: Order = Order.ID,
    limit: _Limit = None,
    after: _After = None,
) -> Response:
    """Report requests, tokens and exact cost; of the last 24 hours unless said otherwise."""
    if after is not None and (since is None or until is None or is_relative(since) or is_relative(until)):
        # The period would have moved on since the page before: rows of two periods would be taken for one report.
        raise InvalidRequest("after needs the since and until that the page before answered", param="after")
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    if by is None:
        by = Grouping.ORG.value if bucket is None else ""
    if limit is None and form is ReportFormat.JSON and order is Order.ID:
        limit = ROWS_MAX
    asked = Asked(period, groupings(by), bucket, filters, order, limit, after)
    made = await usage_report(admin.db, admin.scope, asked, organization=organization)
    if form is not ReportFormat.JSON:
        admin.response_headers.update(_about(made))
    body = await asyncio.to_thread(_body, asked, made, form)  # beside the requests that the replica is serving
    return Response(body, media_type=MEDIA_TYPES[form])


def _body(asked: Asked, made: Report, form: ReportFormat) -> bytes:
    if form is not ReportFormat.JSON:
        return as_file(asked, made.rows, form)
    return msgspec.json.encode(
        {
            "by": ",".join(asked.by),
            "bucket": asked.bucket,
            "order": asked.order,
            "since": asked.period.since,
            "until": asked.period.until,
            "as_of": made.as_of,
            "rolled_up_at": made.rolled_up_at,
            "data": made.rows,
            "next_after": made.next_after,
            "more": made.more,
        }
    )


def _about(made: Report) -> dict[str, str]:
    """Return headers that tell of a file what JSON tells beside its rows."""
    about = {"content-disposition": 'attachment; filename="usage"', "penstock-as-of": made.as_of.isoformat()}
    if made.more:
        about["penstock-more"] = "true"
    return about
