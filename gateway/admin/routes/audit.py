"""The audit log over HTTP: what was changed, the latest first."""

import datetime as dt
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.audit import KINDS, AuditEvent, AuditFilter, list_audit_events
from gateway.admin.page import ROWS_MAX
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import OrganizationQuery
from gateway.admin.times import parse_moment
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/audit", tags=["audit"], route_class=AdminRoute)

_Moment = Annotated[
    str | None, Query(max_length=40, description="2026-08-01, 2026-08-01T12:00Z (UTC), or 24h, 7d for that long ago.")
]


class AuditListing(BaseModel):
    """Entries of the audit log, the latest first.

    `next_before` is null on the last page; the next one is had by the same call with `before` set to it.
    """

    data: list[AuditEvent]
    next_before: int | None


@router.get("", operation_id="list_audit_events")
async def index(
    admin: AdminDep,
    organization: OrganizationQuery = None,
    since: _Moment = None,
    until: _Moment = None,
    kind: Annotated[str | None, Query(max_length=40, description=f"One of {', '.join(KINDS)}.")] = None,
    subject: Annotated[str | None, Query(max_length=200, description="Id of what was changed.")] = None,
    actor: Annotated[
        str | None, Query(max_length=200, description="Who did it: a name, an id, or a credential's public id.")
    ] = None,
    action: Literal["create", "change", "delete"] | None = None,
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX, description="How many entries at most.")] = 100,
    before: Annotated[
        int | None, Query(ge=1, le=2**63 - 1, description="The `next_before` of the page before.")
    ] = None,
) -> AuditListing:
    """List who changed what and when, with what it was before and from where it was done."""
    if kind is not None and kind not in KINDS:
        raise InvalidRequest(f"kind must be one of {', '.join(KINDS)}", param="kind")
    now = dt.datetime.now(dt.UTC)
    wanted = AuditFilter(
        since=None if since is None else parse_moment(since, now, "since"),
        until=None if until is None else parse_moment(until, now, "until"),
        kind=kind,
        subject=subject,
        actor=actor,
        action=action,
    )
    found = await list_audit_events(
        admin.db, admin.scope, wanted, limit=limit, before=before, organization=organization
    )
    return AuditListing(data=found, next_before=found[-1].id if len(found) == limit else None)
