"""Users over HTTP: list them, and make one as a member of any number of teams."""

import datetime as dt
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

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
from gateway.admin.users import TEAMS_MAX, create_user, list_users

router = APIRouter(prefix="/users", tags=["users"])


class NewUser(Wanted):
    """What a user is made of. `teams` are ids or names in the organization."""

    name: str
    organization: Reference
    teams: Annotated[tuple[Reference, ...], Field(max_length=TEAMS_MAX, strict=False)] = ()


class UserShown(Shown):
    """A user. `teams` are names."""

    id: UUID
    name: str
    organization_id: UUID
    organization: str
    teams: list[str]
    created_at: dt.datetime


@router.get("", operation_id="list_users")
async def index(
    control: ControlDep, scope: ScopeDep, page: PageDep, organization: OrganizationQuery = None
) -> Listing[UserShown]:
    """List users."""
    async with control.transaction() as db:
        return Listing[UserShown].of(await list_users(db, scope, page, organization=organization), page)


@router.post("", status_code=201, operation_id="create_user")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewUser) -> UserShown:
    """Make a user."""
    async with control.transaction() as db:
        made = await create_user(db, scope, wanted.name, organization=wanted.organization, teams=wanted.teams)
    return UserShown.model_validate(made)
