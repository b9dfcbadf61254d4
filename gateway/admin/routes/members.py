"""Memberships over HTTP: who is in a team, and who administers it."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query
from pydantic import Field

from gateway.admin.memberships import Member, add_member, change_member, find_member, list_members, remove_member
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.routes.teams import TeamPath
from gateway.admin.scope import MembershipRole
from gateway.admin.users import User

router = APIRouter(prefix="/teams/{team}/members", tags=["memberships"], route_class=AdminRoute)

_User: TypeAlias = Annotated[str, Path(max_length=200, description="Id or name of the user.")]


class NewMember(Wanted):
    """Who joins a team, and as what. `organization` tells teams of the same name apart."""

    user: Reference
    organization: Reference | None = None
    role: Annotated[MembershipRole, Field(strict=False)] = MembershipRole.MEMBER


class MemberChange(Wanted):
    """What a member becomes."""

    role: Annotated[MembershipRole, Field(strict=False)]


@router.get("", operation_id="list_members")
async def index(
    admin: AdminDep,
    page: PageDep,
    team: TeamPath,
    organization: OrganizationQuery = None,
    role: Annotated[MembershipRole | None, Query(description="Those of this role alone.")] = None,
) -> Listing[Member]:
    """List who is in a team; to who does not administer it, itself alone."""
    found = await list_members(admin.db, admin.scope, page, team=team, organization=organization, role=role)
    return Listing[Member].of(found, page)


@router.post("", operation_id="add_member")
async def join(admin: AdminDep, team: TeamPath, wanted: NewMember) -> User:
    """Make a user a member of a team; harmless when it is one. For the team's administrator.

    Anybody of the organization can be taken in by name or id. Who administers a team is said by the organization's
    administrator.
    """
    return await add_member(
        admin.db, admin.scope, team=team, user=wanted.user, organization=wanted.organization, role=wanted.role
    )


@router.get("/{user}", operation_id="get_member")
async def show(admin: AdminDep, team: TeamPath, user: _User, organization: OrganizationQuery = None) -> Member:
    """Show a member of a team."""
    return admin.tagged(await find_member(admin.db, admin.scope, team=team, user=user, organization=organization))


@router.patch("/{user}", operation_id="update_member")
async def update(
    admin: AdminDep, team: TeamPath, user: _User, wanted: MemberChange, organization: OrganizationQuery = None
) -> Member:
    """Let a member administer its team, or no longer. For the organization's administrator."""
    found = await find_member(admin.db, admin.scope, team=team, user=user, organization=organization, lock=True)
    admin.check_match(found)
    return admin.tagged(await change_member(admin.db, admin.scope, found, wanted.role))


@router.delete("/{user}", operation_id="remove_member")
async def remove(admin: AdminDep, team: TeamPath, user: _User, organization: OrganizationQuery = None) -> Member:
    """Take a person out of a team; the keys it held there are revoked. For the team's administrator."""
    found = await find_member(admin.db, admin.scope, team=team, user=user, organization=organization, lock=True)
    admin.check_match(found)
    return await remove_member(admin.db, admin.scope, found)
