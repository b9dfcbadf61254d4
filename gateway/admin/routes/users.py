"""Users over HTTP: list them, and make one as a member of any number of teams."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.users import TEAMS_MAX, User, create_user, list_users

router = APIRouter(prefix="/users", tags=["users"], route_class=AdminRoute)


class NewUser(Wanted):
    """What a user is made of. `teams` are ids or names in the organization."""

    name: str
    organization: Reference
    teams: Annotated[tuple[Reference, ...], Field(max_length=TEAMS_MAX, strict=False)] = ()


@router.get("", operation_id="list_users")
async def index(admin: AdminDep, page: PageDep, organization: OrganizationQuery = None) -> Listing[User]:
    """List users."""
    return Listing[User].of(await list_users(admin.db, admin.scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_user")
async def create(admin: AdminDep, wanted: NewUser) -> User:
    """Make a user."""
    return await create_user(admin.db, admin.scope, wanted.name, organization=wanted.organization, teams=wanted.teams)
