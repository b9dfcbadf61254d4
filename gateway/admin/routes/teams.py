"""Teams over HTTP: list them, make one in an organization, and put users into one."""

import datetime as dt
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path

from gateway.admin.routes.context import (
    ControlDep,
    Listing,
    OrganizationQuery,
    PageDep,
    Reference,
    ScopeDep,
    Shown,
    Wanted,
)
from gateway.admin.routes.users import UserShown
from gateway.admin.teams import create_team, list_teams
from gateway.admin.users import add_member

router = APIRouter(prefix="/teams", tags=["teams"])


class NewTeam(Wanted):
    """What a team is made of."""

    name: str
    organization: Reference


class NewMember(Wanted):
    """Who joins a team. `organization` tells teams of the same name apart."""

    user: Reference
    organization: Reference | None = None


class TeamShown(Shown):
    """A team."""

    id: UUID
    name: str
    organization_id: UUID
    organization: str
    created_at: dt.datetime


@router.get("", operation_id="list_teams")
async def index(
    control: ControlDep, scope: ScopeDep, page: PageDep, organization: OrganizationQuery = None
) -> Listing[TeamShown]:
    """List teams."""
    async with control.transaction() as db:
        return Listing[TeamShown].of(await list_teams(db, scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_team")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewTeam) -> TeamShown:
    """Make a team."""
    async with control.transaction() as db:
        made = await create_team(db, scope, wanted.name, organization=wanted.organization)
    return TeamShown.model_validate(made)


@router.post("/{team}/members", operation_id="add_member")
async def join(
    control: ControlDep, scope: ScopeDep, team: Annotated[str, Path(max_length=200)], wanted: NewMember
) -> UserShown:
    """Make a user a member of a team; harmless when it is one."""
    async with control.transaction() as db:
        member = await add_member(db, scope, team=team, user=wanted.user, organization=wanted.organization)
    return UserShown.model_validate(member)
