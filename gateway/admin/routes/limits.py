"""Limits over HTTP: list them, set one at any of the four levels, and remove one."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.admin.limits import LimitRule, Subject, clear_limit, list_limits, set_limit
from gateway.admin.routes.context import ControlDep, Listing, OrganizationQuery, PageDep, Reference, ScopeDep
from gateway.admin.routes.limit_fields import WantedLimits
from gateway.domain.principal import Level

router = APIRouter(prefix="/limits", tags=["limits"])


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
async def index(
    control: ControlDep, scope: ScopeDep, page: PageDep, organization: OrganizationQuery = None
) -> Listing[LimitRule]:
    """List limits."""
    async with control.transaction() as db:
        return Listing[LimitRule].of(await list_limits(db, scope, page, organization=organization), page)


@router.post("", operation_id="set_limit")
async def set_(control: ControlDep, scope: ScopeDep, wanted: NewLimit) -> LimitRule:
    """Make or change a limit."""
    values = wanted.values()
    named = () if wanted.model is None else (wanted.model,)
    control.check_models(named, param="model", unchecked=wanted.unchecked_model)
    subject = Subject(wanted.level, wanted.subject, wanted.organization)
    async with control.transaction() as db:
        return await set_limit(db, scope, subject, values, model=wanted.model)


@router.delete("", operation_id="clear_limit")
async def clear(
    control: ControlDep,
    scope: ScopeDep,
    level: Level,
    subject: Annotated[str, Query(max_length=200)],
    organization: OrganizationQuery = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> Removed:
    """Remove the limit of a subject: the one for `model`, or the one for every model."""
    async with control.transaction() as db:
        return Removed(removed=await clear_limit(db, scope, Subject(level, subject, organization), model=model))
