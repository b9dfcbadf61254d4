"""Teams over HTTP: list them, make one in an organization, and put users into one."""

from typing import Annotated

from fastapi import APIRouter, Path

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.teams import Team, create_team, list_teams
from gateway.admin.users import User, add_member

router = APIRouter(prefix="/teams", tags=["teams"], route_class=AdminRoute)


class NewTeam(Wanted):
    """What a team is made of."""

    name: str
    organization: Reference


class NewMember(Wanted):
    """Who joins a team. `organization` tells teams of the same name apart."""

    user: Reference
    organization: Reference | None = None


@router.get("", operation_id="list_teams")
async def index(admin: AdminDep, page: PageDep, organization: OrganizationQuery = None) -> Listing[Team]:
    """List teams."""
    return Listing[Team].of(await list_teams(admin.db, admin.scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_team")
async def create(admin: AdminDep, wanted: NewTeam) -> Team:
    """Make a team."""
    return await create_team(admin.db, admin.scope, wanted.name, organization=wanted.organization)


@router.post("/{team}/members", operation_id="add_member")
async def join(admin: AdminDep, team: Annotated[str, Path(max_length=200)], wanted: NewMember) -> User:
    """Make a user a member of a team; harmless when it is one."""
    return await add_member(admin.db, admin.scope, team=team, user=wanted.user, organization=wanted.organization)
