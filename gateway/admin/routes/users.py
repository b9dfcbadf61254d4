"""Users over HTTP: a person sees itself, a team's administrator its members, an organization's everybody there."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query
from pydantic import Field

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, NameQuery, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.scope import PersonRole
from gateway.admin.users import TEAMS_MAX, User, create_user, delete_user, find_user, list_users, update_user
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/users", tags=["users"], route_class=AdminRoute)

_User: TypeAlias = Annotated[str, Path(max_length=200, description="Id or name.")]
_Role: TypeAlias = Annotated[PersonRole, Field(strict=False)]


class NewUser(Wanted):
    """What a user is made of. `teams` are ids or names in the organization."""

    name: str
    organization: Reference
    teams: Annotated[tuple[Reference, ...], Field(max_length=TEAMS_MAX, strict=False)] = ()
    role: _Role = PersonRole.MEMBER


class UserChange(Wanted):
    """What becomes of a user; what is left out stays. A role that is given here stays what it is at signing in."""

    name: str | None = None
    role: _Role | None = None


@router.get("", operation_id="list_users")
async def index(
    admin: AdminDep,
    page: PageDep,
    organization: OrganizationQuery = None,
    team: Annotated[str | None, Query(max_length=200, description="Members of this team alone (id or name).")] = None,
    name: NameQuery = None,
    role: Annotated[PersonRole | None, Query(description="Those of this role alone.")] = None,
) -> Listing[User]:
    """List users."""
    found = await list_users(admin.db, admin.scope, page, organization=organization, team=team, name=name, role=role)
    return Listing[User].of(found, page)


@router.post("", status_code=201, operation_id="create_user")
async def create(admin: AdminDep, wanted: NewUser) -> User:
    """Make a user. For the organization's administrator, with a role that is no wider than the caller's."""
    made = await create_user(
        admin.db, admin.scope, wanted.name, organization=wanted.organization, teams=wanted.teams, role=wanted.role
    )
    return admin.tagged(made)


@router.get("/{user}", operation_id="get_user")
async def show(admin: AdminDep, user: _User, organization: OrganizationQuery = None) -> User:
    """Show a user."""
    return admin.tagged(await find_user(admin.db, admin.scope, user, organization=organization))


@router.patch("/{user}", operation_id="update_user")
async def update(admin: AdminDep, user: _User, wanted: UserChange, organization: OrganizationQuery = None) -> User:
    """Rename a user, or say what it administers. For the organization's administrator.

    A role is no wider than the caller's, neither the new one nor the one before.
    """
    found = await find_user(admin.db, admin.scope, user, organization=organization, lock=True)
    admin.check_match(found)
    if wanted.name is None and wanted.role is None:
        raise InvalidRequest("say what to change: name, role or both")
    return admin.tagged(await update_user(admin.db, admin.scope, found, name=wanted.name, role=wanted.role))


@router.delete("/{user}", operation_id="delete_user")
async def delete(admin: AdminDep, user: _User, organization: OrganizationQuery = None) -> User:
    """Delete a user, for ever. For the organization's administrator.

    The keys that it holds are revoked, which acts within a second, its admin keys too; its name is free again.
    """
    found = await find_user(admin.db, admin.scope, user, organization=organization, lock=True)
    admin.check_match(found)
    return await delete_user(admin.db, admin.scope, str(found.id))
