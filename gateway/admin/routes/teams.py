"""Teams over HTTP: a person sees those that it is in; the organization's administrator makes and changes them."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, NameQuery, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.teams import Team, create_team, delete_team, find_team, list_teams, rename_team

router = APIRouter(prefix="/teams", tags=["teams"], route_class=AdminRoute)

TeamPath: TypeAlias = Annotated[str, Path(max_length=200, description="Id or name.")]


class NewTeam(Wanted):
    """What a team is made of."""

    name: str
    organization: Reference


class TeamChange(Wanted):
    """What becomes of a team."""

    name: str


@router.get("", operation_id="list_teams")
async def index(
    admin: AdminDep, page: PageDep, organization: OrganizationQuery = None, name: NameQuery = None
) -> Listing[Team]:
    """List teams: those of the organization, or those that a person is in."""
    return Listing[Team].of(await list_teams(admin.db, admin.scope, page, organization=organization, name=name), page)


@router.post("", status_code=201, operation_id="create_team")
async def create(admin: AdminDep, wanted: NewTeam) -> Team:
    """Make a team. For the organization's administrator."""
    return admin.tagged(await create_team(admin.db, admin.scope, wanted.name, organization=wanted.organization))


@router.get("/{team}", operation_id="get_team")
async def show(admin: AdminDep, team: TeamPath, organization: OrganizationQuery = None) -> Team:
    """Show a team."""
    return admin.tagged(await find_team(admin.db, admin.scope, team, organization=organization))


@router.patch("/{team}", operation_id="update_team")
async def update(admin: AdminDep, team: TeamPath, wanted: TeamChange, organization: OrganizationQuery = None) -> Team:
    """Rename a team. For the organization's administrator."""
    found = await find_team(admin.db, admin.scope, team, organization=organization, lock=True)
    admin.check_match(found)
    return admin.tagged(await rename_team(admin.db, admin.scope, found, wanted.name))


@router.delete("/{team}", operation_id="delete_team")
async def delete(admin: AdminDep, team: TeamPath, organization: OrganizationQuery = None) -> Team:
    """Delete a team, for ever. For the organization's administrator.

    Its keys are revoked, which acts within a second; its members stay users, and its name is free again.
    """
    found = await find_team(admin.db, admin.scope, team, organization=organization, lock=True)
    admin.check_match(found)
    return await delete_team(admin.db, admin.scope, str(found.id))
