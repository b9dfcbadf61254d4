"""Users: people of an organization, members of any number of its teams. A key may be made out to one of them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import checked_name, id_and_name, quoted, the_only
from gateway.admin.organizations import find_organization, narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.teams import Team, find_team
from gateway.errors import Conflict, InvalidRequest

TEAMS_MAX = 100
"""How many teams one call may put a user into."""

_SELECT = """
    SELECT app_user.id, app_user.name, app_user.organization_id, organization.name AS organization,
        ARRAY(
            SELECT team.name FROM membership JOIN team ON team.id = membership.team_id
            WHERE membership.user_id = app_user.id AND team.deleted_at IS NULL ORDER BY team.name
        ) AS teams,
        app_user.created_at
    FROM app_user JOIN organization ON organization.id = app_user.organization_id
    WHERE app_user.deleted_at IS NULL AND organization.deleted_at IS NULL
      AND ($1::uuid IS NULL OR app_user.organization_id = $1)
"""


@dataclass(frozen=True, slots=True)
class User:
    """A person of one organization, whose names are unique there. `organization` and `teams` are names."""

    id: UUID
    name: str
    organization_id: UUID
    organization: str
    teams: tuple[str, ...]
    created_at: dt.datetime


async def create_user(db: Database, scope: Scope, name: str, *, organization: str, teams: Sequence[str] = ()) -> User:
    """Make a user and put it into teams (ids or names of the same organization).

    Raises InvalidRequest, NotFound for the organization or a team, Conflict for a taken name.
    """
    checked_name(name)
    if len(teams) > TEAMS_MAX:
        raise InvalidRequest(f"at most {TEAMS_MAX} teams at once", param="teams")
    owner = await find_organization(db, scope, organization)
    joined = [await find_team(db, Scope(owner.id), team) for team in teams]
    try:
        row = await db.fetchrow(
            "INSERT INTO app_user (organization_id, name) VALUES ($1, $2) RETURNING id, created_at", owner.id, name
        )
    except asyncpg.UniqueViolationError as error:
        message = f"a user named {quoted(name)} exists already in organization {quoted(owner.name)}"
        raise Conflict(message, param="name") from error
    assert row is not None, "RETURNING returns"
    user = User(row["id"], name, owner.id, owner.name, (), row["created_at"])
    for team in joined:
        await _join(db, team, user)
    return replace(user, teams=tuple(sorted({team.name for team in joined})))


async def add_member(db: Database, scope: Scope, *, team: str, user: str, organization: str | None = None) -> User:
    """Make a user (id or name) a member of a team; nothing happens when it is one.

    Raises NotFound: also when the two are of different organizations.
    """
    member_of = await find_team(db, scope, team, organization=organization)
    member = await find_user(db, Scope(member_of.organization_id), user)
    await _join(db, member_of, member)
    return replace(member, teams=tuple(sorted({*member.teams, member_of.name})))


async def find_user(db: Database, scope: Scope, reference: str, *, organization: str | None = None) -> User:
    """Return the user with this id or name.

    Raises NotFound, and InvalidRequest when the name occurs in several organizations of the scope and none is given.
    """
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"{_SELECT} AND (app_user.id = $2 OR app_user.name = $3) LIMIT 2",
        scope.organization_id,
        *id_and_name(reference),
    )
    return _user(the_only(rows, "user", reference))


async def list_users(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, *, organization: str | None = None
) -> list[User]:
    """Return the users within the scope, one page, by id. Raises NotFound when `organization` is not within it."""
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"{_SELECT} AND ($2::uuid IS NULL OR app_user.id > $2) ORDER BY app_user.id LIMIT $3",
        scope.organization_id,
        page.after,
        page.limit,
    )
    return [_user(row) for row in rows]


async def delete_user(db: Database, scope: Scope, reference: str, *, organization: str | None = None) -> User:
    """Delete a user (id or name) for ever: the keys held are revoked, which acts within a second; the name is free.

    Raises NotFound, and InvalidRequest as `find_user` does.
    """
    user = await find_user(db, scope, reference, organization=organization)
    who = (user.organization_id, user.id)
    await db.execute("UPDATE app_user SET deleted_at = now() WHERE organization_id = $1 AND id = $2", *who)
    await db.execute(
        "UPDATE api_key SET revoked_at = now() WHERE organization_id = $1 AND user_id = $2 AND revoked_at IS NULL",
        *who,
    )
    await db.execute("DELETE FROM membership WHERE organization_id = $1 AND user_id = $2", *who)
    return user


async def _join(db: Database, team: Team, user: User) -> None:
    await db.execute(
        "INSERT INTO membership (organization_id, team_id, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        team.organization_id,
        team.id,
        user.id,
    )


def _user(row: asyncpg.Record) -> User:
    return User(**{**row, "teams": tuple(row["teams"])})
