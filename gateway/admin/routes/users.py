"""Users over HTTP: list them, and make one as a member of any number of teams."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from gateway.admin.routes.context import ControlDep, Listing, OrganizationQuery, PageDep, Reference, ScopeDep, Wanted
from gateway.admin.users import TEAMS_MAX, User, create_user, list_users

router = APIRouter(prefix="/users", tags=["users"])


class NewUser(Wanted):
    """What a user is made of. `teams` are ids or names in the organization."""

    name: str
    organization: Reference
    teams: Annotated[tuple[Reference, ...], Field(max_length=TEAMS_MAX, strict=False)] = ()


@router.get("", operation_id="list_users")
async def index(
    control: ControlDep, scope: ScopeDep, page: PageDep, organization: OrganizationQuery = None
) -> Listing[User]:
    """List users."""
    async with control.transaction() as db:
        return Listing[User].of(await list_users(db, scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_user")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewUser) -> User:
    """Make a user."""
    async with control.transaction() as db:
        return await create_user(db, scope, wanted.name, organization=wanted.organization, teams=wanted.teams)
