"""Limits over HTTP: list them, set one at any of the four levels, and remove one."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.admin.limits import LimitRule, Subject, clear_limit, list_limits, set_limit
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference
from gateway.admin.routes.limit_fields import WantedLimits
from gateway.domain.principal import Level

router = APIRouter(prefix="/limits", tags=["limits"], route_class=AdminRoute)


class NewLimit(WantedLimits):
    """A limit on a subject (id or name) at a level, for one model or for all. Values not given are kept.

    `unchecked_model` takes a name that penstock.yaml does not have.
    """

    level: Annotated[Level, Field(strict=False)]
    subject: Reference
    organization: Reference | None = None
    model: str | None = None
    unchecked_model: bool = False


class Removed(BaseModel):
    """How many limits were removed: 0 or 1."""

    removed: int


@router.get("", operation_id="list_limits")
async def index(admin: AdminDep, page: PageDep, organization: OrganizationQuery = None) -> Listing[LimitRule]:
    """List limits."""
    return Listing[LimitRule].of(await list_limits(admin.db, admin.scope, page, organization=organization), page)


@router.post("", operation_id="set_limit")
async def set_(admin: AdminDep, wanted: NewLimit) -> LimitRule:
    """Make or change a limit."""
    values = wanted.values()
    named = () if wanted.model is None else (wanted.model,)
    admin.control.check_models(named, param="model", unchecked=wanted.unchecked_model)
    subject = Subject(wanted.level, wanted.subject, wanted.organization)
    return await set_limit(admin.db, admin.scope, subject, values, model=wanted.model)


@router.delete("", operation_id="clear_limit")
async def clear(
    admin: AdminDep,
    level: Level,
    subject: Annotated[str, Query(max_length=200)],
    organization: OrganizationQuery = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> Removed:
    """Remove the limit of a subject: the one for `model`, or the one for every model."""
    return Removed(removed=await clear_limit(admin.db, admin.scope, Subject(level, subject, organization), model=model))
