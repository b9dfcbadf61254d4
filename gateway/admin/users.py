"""Users: people of an organization, members of any number of its teams. A key may be made out to one of them.

An organization's administrator makes and changes them; a team's administrator sees the members of its teams, and
everybody sees itself.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import id_and_name, quoted, tenant_name, the_only
from gateway.admin.organizations import find_organization, narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import PersonRole, Scope
from gateway.admin.teams import find_team
from gateway.errors import Conflict, InvalidRequest

TEAMS_MAX = 100
"""How many teams one call may put a user into."""

# A person is told of the teams that it may know of, also of somebody who is in others, too.
_SELECT = """
    SELECT app_user.id, app_user.name, app_user.organization_id, organization.name AS organization,
        app_user.role, app_user.role_source, app_user.email,
        ARRAY(
            SELECT team.name
            FROM membership JOIN team ON team.organization_id = membership.organization_id
                AND team.id = membership.team_id
            WHERE membership.organization_id = app_user.organization_id AND membership.user_id = app_user.id
                AND team.deleted_at IS NULL AND ($2::uuid[] IS NULL OR team.id = ANY ($2))
            ORDER BY team.name
        ) AS teams,
        app_user.created_at
    FROM app_user JOIN organization ON organization.id = app_user.organization_id
    WHERE app_user.deleted_at IS NULL AND organization.deleted_at IS NULL
      AND ($1::uuid IS NULL OR app_user.organization_id = $1)
      AND ($3::uuid[] IS NULL OR app_user.id = $4 OR app_user.id IN (
            SELECT user_id FROM membership WHERE organization_id = $1 AND team_id = ANY ($3)))
"""
_LOCK = "FOR UPDATE OF app_user"


@dataclass(frozen=True, slots=True)
class User:
    """A person of one organization, whose names are unique there. `organization` and `teams` are names.

    `role_source`: whether somebody gave the role by hand or an identity provider did, at the last signing in.
    """

    id: UUID
    name: str
    organization_id: UUID
    organization: str
    role: PersonRole
    role_source: str
    email: str | None
    teams: tuple[str, ...]
    created_at: dt.datetime


async def create_user(
    db: Database,
    scope: Scope,
    name: str,
    *,
    organization: str,
    teams: Sequence[str] = (),
    role: PersonRole = PersonRole.MEMBER,
) -> User:
    """Make a user and put it into teams (ids or names of the same organization).

    Raises InvalidRequest, NotFound for the organization or a team, Conflict for a taken name, Forbidden for a person
    of the organization and for a role that is wider than the caller's.
    """
    tenant_name(name)
    if len(teams) > TEAMS_MAX:
        raise InvalidRequest(f"at most {TEAMS_MAX} teams at once", param="teams")
    owner = await find_organization(db, scope, organization)
    scope.require_organization("create users")
    scope.require_grant(role)
    joined = [await find_team(db, scope.within(owner.id), team) for team in teams]
    try:
        row = await db.fetchrow(
            "INSERT INTO app_user (organization_id, name, role) VALUES ($1, $2, $3) RETURNING id",
            owner.id,
            name,
            role.value,
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(name, owner.name) from error
    assert row is not None, "RETURNING returns"
    for team_id in {team.id for team in joined}:
        await db.execute(
            "INSERT INTO membership (organization_id, team_id, user_id) VALUES ($1, $2, $3)",
            owner.id,
            team_id,
            row["id"],
        )
    return await find_user(db, scope, str(row["id"]))


async def find_user(
    db: Database, scope: Scope, reference: str, *, organization: str | None = None, lock: bool = False
) -> User:
    """Return the user with this id or name, with `lock` held until the transaction ends.

    Raises NotFound, and InvalidRequest when the name occurs in several organizations of the scope and none is given.
    """
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"{_SELECT} AND (app_user.id = $5 OR app_user.name = $6) LIMIT 2 {_LOCK if lock else ''}",
        *_reach(scope),
        *id_and_name(reference),
    )
    return _user(the_only(rows, "user", reference))


async def list_users(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    organization: str | None = None,
    team: str | None = None,
    name: str | None = None,
    role: PersonRole | None = None,
) -> list[User]:
    """Return the users within the scope, one page, by id; with `name` those whose name holds it.

    Raises NotFound when `organization` or `team` is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    team_id = None if team is None else (await find_team(db, scope, team)).id
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($5::uuid IS NULL OR app_user.id > $5)
            AND ($6::text IS NULL OR position(lower($6) IN lower(app_user.name)) > 0)
            AND ($7::text IS NULL OR app_user.role = $7)
            AND ($8::uuid IS NULL OR EXISTS (
                SELECT FROM membership
                WHERE membership.organization_id = app_user.organization_id AND membership.user_id = app_user.id
                    AND membership.team_id = $8))
        ORDER BY app_user.id LIMIT $9
        """,
        *_reach(scope),
        page.after,
        name,
        role,
        team_id,
        page.limit,
    )
    return [_user(row) for row in rows]


async def update_user(
    db: Database, scope: Scope, user: User, *, name: str | None = None, role: PersonRole | None = None
) -> User:
    """Change a user that is held by a lock; None leaves a value as it is. A role given here is given by hand.

    Raises InvalidRequest, Conflict for a taken name, and Forbidden for a person of the organization, for a role that
    is wider than the caller's, and for somebody whose role is.
    """
    scope.require_organization("change users")
    scope.require_grant(user.role)
    if role is not None:
        scope.require_grant(role)
    wanted = replace(
        user,
        name=user.name if name is None else tenant_name(name),
        role=role or user.role,
        role_source=user.role_source if role is None else "manual",
    )
    try:
        await db.execute(
            "UPDATE app_user SET name = $3, role = $4, role_source = $5 WHERE organization_id = $1 AND id = $2",
            user.organization_id,
            user.id,
            wanted.name,
            wanted.role.value,
            wanted.role_source,
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(wanted.name, user.organization) from error
    return wanted


async def signed_in_users(db: Database, organization_id: UUID) -> frozenset[UUID]:
    """Return who of an organization is known to an identity provider; the caller's reach is held before."""
    rows = await db.fetch(
        "SELECT id FROM app_user WHERE organization_id = $1 AND oidc_subject IS NOT NULL AND deleted_at IS NULL",
        organization_id,
    )
    return frozenset(row["id"] for row in rows)


async def delete_user(db: Database, scope: Scope, reference: str, *, organization: str | None = None) -> User:
    """Delete a user (id or name) for ever: the keys held are revoked, which acts within a second; the name is free.

    Raises NotFound, InvalidRequest as `find_user` does, and Forbidden for a person of the organization and for somebody
    whose role is wider than the caller's.
    """
    user = await find_user(db, scope, reference, organization=organization, lock=True)
    scope.require_organization("delete users")
    scope.require_grant(user.role)
    who = (user.organization_id, user.id)
    await db.execute("UPDATE app_user SET deleted_at = now() WHERE organization_id = $1 AND id = $2", *who)
    await db.execute(
        "UPDATE api_key SET revoked_at = now() WHERE organization_id = $1 AND user_id = $2 AND revoked_at IS NULL",
        *who,
    )
    await db.execute(
        """
        UPDATE admin_credential SET revoked_at = now()
        WHERE organization_id = $1 AND user_id = $2 AND revoked_at IS NULL
        """,
        *who,
    )
    await db.execute("DELETE FROM membership WHERE organization_id = $1 AND user_id = $2", *who)
    return user


def _reach(scope: Scope) -> tuple[UUID | None, tuple[UUID, ...] | None, tuple[UUID, ...] | None, UUID | None]:
    return scope.organization_id, scope.visible_teams, scope.teams, scope.user_id


def _taken(name: str, organization: str) -> Conflict:
    message = f"a user named {quoted(name)} exists already in organization {quoted(organization)}"
    return Conflict(message, param="name")


def _user(row: asyncpg.Record) -> User:
    return User(**{**row, "teams": tuple(row["teams"]), "role": PersonRole(row["role"])})
