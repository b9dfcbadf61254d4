"""Statements over HTTP: list them, read one or a draft as JSON, CSV or a page, and close a month."""

from typing import Annotated, TypeAlias

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.statement_files import StatementFormat, as_csv, as_page, page_headers
from gateway.admin.statements import (
    Statement,
    StatementSummary,
    close_statement,
    list_statements,
    parse_month,
    show_statement,
)

router = APIRouter(prefix="/statements", tags=["statements"], route_class=AdminRoute)

MONTH_CHARS_MAX = 20
_Month: TypeAlias = Annotated[str, Path(max_length=MONTH_CHARS_MAX, description="Like 2026-08, in UTC.")]
_TEXT = {"schema": {"type": "string"}}


class ClosedMonth(Wanted):
    """Which month of which organization to close."""

    organization: Reference
    month: Annotated[str, Field(max_length=MONTH_CHARS_MAX, description="Like 2026-08, in UTC.")]


@router.get("", operation_id="list_statements")
async def list_(admin: AdminDep, page: PageDep, organization: OrganizationQuery = None) -> Listing[StatementSummary]:
    """List the statements of closed months."""
    rows = await list_statements(admin.db, admin.scope, page, organization=organization)
    return Listing[StatementSummary].of(rows, page)


@router.get(
    "/{month}",
    operation_id="show_statement",
    response_model=Statement,
    responses={200: {"content": {"text/csv": _TEXT, "text/html": _TEXT}}},
)
async def show(
    admin: AdminDep,
    month: _Month,
    organization: OrganizationQuery = None,
    form: Annotated[StatementFormat, Query(alias="format")] = StatementFormat.JSON,
) -> Response:
    """Read an organization's statement of a month, or a draft of what it would say now."""
    statement = await show_statement(admin.db, admin.scope, parse_month(month), organization=organization)
    if form is StatementFormat.HTML:
        return Response(as_page(statement), media_type="text/html", headers=page_headers())
    if form is StatementFormat.CSV:
        return Response(as_csv(statement), media_type="text/csv")
    return Response(msgspec.json.encode(statement), media_type="application/json")


@router.post("", status_code=201, operation_id="close_statement")
async def close(admin: AdminDep, body: ClosedMonth) -> Statement:
    """Close an organization's month that has ended: what it said stays for ever, what comes late is in the next one."""
    return await close_statement(admin.db, admin.scope, parse_month(body.month), organization=body.organization)
