"""Limits over HTTP: those that bind the caller and what it administers, set at any of the four levels, and removed."""

import datetime as dt
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from gateway.admin.limit_spending import LimitRuleSpent, with_spending, without_spending
from gateway.admin.limits import LimitRule, Subject, clear_limit, find_limit, list_limits, set_limit
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference
from gateway.admin.routes.limit_fields import WantedLimits
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/limits", tags=["limits"], route_class=AdminRoute)

_Level: TypeAlias = Literal["organization", "team", "user", "key"]
_Limit: TypeAlias = Annotated[UUID, Path(description="Id of the limit.")]
_Model: TypeAlias = Annotated[str | None, Query(max_length=200, description="The one of this model alone.")]


class NewLimit(WantedLimits):
    """A limit on a subject (id or name) at a level, for one model or for all. Values not given are kept.

    `unchecked_model` takes a name that penstock.yaml does not have.
    """

    level: _Level
    subject: Reference
    organization: Reference | None = None
    model: str | None = None
    unchecked_model: bool = False


class LimitChange(WantedLimits):
    """What becomes of a limit. A value left out stays as it is, null takes it away, the last one with the limit."""


class Removed(BaseModel):
    """How many limits were removed: 0 or 1."""

    removed: int


@router.get("", operation_id="list_limits")
async def index(
    admin: AdminDep,
    page: PageDep,
    organization: OrganizationQuery = None,
    level: Annotated[_Level | None, Query(description="Those of this level alone.")] = None,
    subject: Annotated[
        str | None, Query(max_length=200, description="Those of this one alone (id or name); needs `level`.")
    ] = None,
    model: _Model = None,
    spending: Annotated[bool, Query(description="Tell what is spent of budgets.")] = False,  # noqa: FBT002 - a parameter
) -> Listing[LimitRuleSpent] | Listing[LimitRule]:
    """List limits. With `spending`, tell what is spent of each budget in its period of now.

    What a whole organization has spent is told to its administrator alone.
    """
    if subject is not None and level is None:
        raise InvalidRequest("subject needs level: organization, team, user or key", param="level")
    narrowed_to = None if subject is None or level is None else Subject(Level(level), subject, organization)
    rules = await list_limits(
        admin.db,
        admin.scope,
        page,
        organization=organization,
        subject=narrowed_to,
        level=None if level is None else Level(level),
        model=model,
    )
    if not spending:
        return Listing[LimitRule].of(rules, page)
    told = [rule for rule in rules if admin.scope.teams is None or rule.level is not Level.ORGANIZATION]
    spent = {rule.id: rule for rule in await with_spending(admin.db, told, dt.datetime.now(dt.UTC))}
    return Listing[LimitRuleSpent].of([spent.get(rule.id) or without_spending(rule) for rule in rules], page)


@router.post("", operation_id="set_limit")
async def set_(admin: AdminDep, wanted: NewLimit) -> LimitRule:
    """Make or change a limit.

    Those of an organization are the platform's to set, those of teams and users their organization's, those of keys
    their team's.
    """
    values = wanted.values()
    named = () if wanted.model is None else (wanted.model,)
    admin.control.check_models(named, param="model", unchecked=wanted.unchecked_model)
    subject = Subject(Level(wanted.level), wanted.subject, wanted.organization)
    return admin.tagged(await set_limit(admin.db, admin.scope, subject, values, model=wanted.model))


@router.delete("", operation_id="clear_limit")
async def clear(
    admin: AdminDep,
    level: _Level,
    subject: Annotated[str, Query(max_length=200, description="Id or name of what is limited.")],
    organization: OrganizationQuery = None,
    model: _Model = None,
) -> Removed:
    """Remove the limit of a subject: the one for `model`, or the one for every model."""
    limited = Subject(Level(level), subject, organization)
    return Removed(removed=await clear_limit(admin.db, admin.scope, limited, model=model))


@router.get("/{limit}", operation_id="get_limit")
async def show(admin: AdminDep, limit: _Limit) -> LimitRule:
    """Show a limit."""
    return admin.tagged(await find_limit(admin.db, admin.scope, limit))


@router.patch("/{limit}", operation_id="update_limit")
async def update(admin: AdminDep, limit: _Limit, wanted: LimitChange) -> LimitRule:
    """Change a limit; who may is as for `set_limit`."""
    found = await find_limit(admin.db, admin.scope, limit, lock=True)
    admin.check_match(found)
    subject = Subject(found.level, str(found.subject_id))
    return admin.tagged(await set_limit(admin.db, admin.scope, subject, wanted.values(), model=found.model))


@router.delete("/{limit}", operation_id="delete_limit")
async def delete(admin: AdminDep, limit: _Limit) -> LimitRule:
    """Remove a limit; who may is as for `set_limit`."""
    found = await find_limit(admin.db, admin.scope, limit, lock=True)
    admin.check_match(found)
    await clear_limit(admin.db, admin.scope, Subject(found.level, str(found.subject_id)), model=found.model)
    return found
