"""Memberships: who is in a team, and who administers it.

A team's administrator takes anybody of the organization into its team whom it can name, and lets members go. Who
administers a team is for the organization's administrator to say: nobody widens itself, nor what it has itself.
"""

import datetime as dt
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import quoted
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import MembershipRole, Scope
from gateway.admin.teams import Team, find_team
from gateway.admin.users import User, find_user
from gateway.errors import NotFound

_SELECT = """
    SELECT app_user.id, app_user.name, membership.role, membership.source, membership.team_id, team.name AS team,
        membership.organization_id, organization.name AS organization, membership.created_at
    FROM membership
        JOIN organization ON organization.id = membership.organization_id
        JOIN team ON team.organization_id = membership.organization_id AND team.id = membership.team_id
        JOIN app_user ON app_user.organization_id = membership.organization_id AND app_user.id = membership.user_id
    WHERE team.deleted_at IS NULL AND app_user.deleted_at IS NULL AND membership.organization_id = $1
        AND ($2::uuid[] IS NULL OR membership.team_id = ANY ($2) OR membership.user_id = $3)
        AND membership.team_id = $4
"""
_LOCK = "FOR UPDATE OF membership"


@dataclass(frozen=True, slots=True)
class Member:
    """A person in a team: `id` and `name` are the user's.

    `source`: whether somebody put it there by hand or an identity provider did, at the last signing in.
    """

    id: UUID
    name: str
    role: MembershipRole
    source: str
    team_id: UUID
    team: str
    organization_id: UUID
    organization: str
    created_at: dt.datetime


async def list_members(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    team: str,
    organization: str | None = None,
    role: MembershipRole | None = None,
) -> list[Member]:
    """Return who is in a team, one page, by id; to who does not administer it, itself alone. Raises NotFound."""
    found = await find_team(db, scope, team, organization=organization)
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($5::uuid IS NULL OR app_user.id > $5) AND ($6::text IS NULL OR membership.role = $6)
        ORDER BY app_user.id LIMIT $7
        """,
        *_reach(scope, found),
        page.after,
        role,
        page.limit,
    )
    return [_member(row) for row in rows]


async def find_member(
    db: Database, scope: Scope, *, team: str, user: str, organization: str | None = None, lock: bool = False
) -> Member:
    """Return one person in a team, with `lock` held until the transaction ends. Raises NotFound."""
    found = await find_team(db, scope, team, organization=organization)
    person = await find_user(db, scope.within(found.organization_id), user)
    row = await db.fetchrow(
        f"{_SELECT} AND membership.user_id = $5 {_LOCK if lock else ''}", *_reach(scope, found), person.id
    )
    if row is None:
        raise NotFound(f"no user {quoted(user)} in this team", param="user")
    return _member(row)


async def add_member(
    db: Database,
    scope: Scope,
    *,
    team: str,
    user: str,
    organization: str | None = None,
    role: MembershipRole = MembershipRole.MEMBER,
) -> User:
    """Make a user (id or name) a member of a team, and return it; nothing happens when it is one, in whatever role.

    Raises NotFound, also when the two are of different organizations; Forbidden unless the caller administers the
    team, and for team administrators who would make another.
    """
    joined = await find_team(db, scope, team, organization=organization)
    scope.require_team(joined.id, "add members")
    if role is MembershipRole.TEAM_ADMIN:
        scope.require_organization("make administrators of teams")
    member = await find_user(db, Scope(joined.organization_id), user)
    await db.execute(
        """
        INSERT INTO membership (organization_id, team_id, user_id, role) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """,
        joined.organization_id,
        joined.id,
        member.id,
        role.value,
    )
    return await find_user(db, scope, str(member.id))


async def change_member(db: Database, scope: Scope, member: Member, role: MembershipRole) -> Member:
    """Give a member, held by a lock, another role in its team. Raises Forbidden for a person of the organization."""
    scope.require_organization("say who administers teams")
    await db.execute(
        """
        UPDATE membership SET role = $4, source = 'manual'
        WHERE organization_id = $1 AND team_id = $2 AND user_id = $3
        """,
        member.organization_id,
        member.team_id,
        member.id,
        role.value,
    )
    return replace(member, role=role, source="manual")


async def remove_member(db: Database, scope: Scope, member: Member) -> Member:
    """Take a person out of a team: the keys it held there are revoked, which acts within a second.

    Raises Forbidden unless the caller administers the team, and for team administrators who would remove another.
    """
    scope.require_team(member.team_id, "remove members")
    if member.role is MembershipRole.TEAM_ADMIN:
        scope.require_organization("remove administrators of teams")
    which = (member.organization_id, member.team_id, member.id)
    await db.execute("DELETE FROM membership WHERE organization_id = $1 AND team_id = $2 AND user_id = $3", *which)
    await db.execute(
        """
        UPDATE api_key SET revoked_at = now()
        WHERE organization_id = $1 AND team_id = $2 AND user_id = $3 AND revoked_at IS NULL
        """,
        *which,
    )
    return member


def _reach(scope: Scope, team: Team) -> tuple[UUID, tuple[UUID, ...] | None, UUID | None, UUID]:
    return team.organization_id, scope.teams, scope.user_id, team.id


def _member(row: asyncpg.Record) -> Member:
    return Member(**{**row, "role": MembershipRole(row["role"])})
