"""Teams over HTTP: list them, make one in an organization, and put users into one."""

from typing import Annotated

from fastapi import APIRouter, Path

from gateway.admin.routes.context import ControlDep, Listing, OrganizationQuery, PageDep, Reference, ScopeDep, Wanted
from gateway.admin.teams import Team, create_team, list_teams
from gateway.admin.users import User, add_member

router = APIRouter(prefix="/teams", tags=["teams"])


class NewTeam(Wanted):
    """What a team is made of."""

    name: str
    organization: Reference


class NewMember(Wanted):
    """Who joins a team. `organization` tells teams of the same name apart."""

    user: Reference
    organization: Reference | None = None


@router.get("", operation_id="list_teams")
async def index(
    control: ControlDep, scope: ScopeDep, page: PageDep, organization: OrganizationQuery = None
) -> Listing[Team]:
    """List teams."""
    async with control.transaction() as db:
        return Listing[Team].of(await list_teams(db, scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_team")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewTeam) -> Team:
    """Make a team."""
    async with control.transaction() as db:
        return await create_team(db, scope, wanted.name, organization=wanted.organization)


@router.post("/{team}/members", operation_id="add_member")
async def join(
    control: ControlDep, scope: ScopeDep, team: Annotated[str, Path(max_length=200)], wanted: NewMember
) -> User:
    """Make a user a member of a team; harmless when it is one."""
    async with control.transaction() as db:
        return await add_member(db, scope, team=team, user=wanted.user, organization=wanted.organization)
