"""Teams: what keys belong to and usage is charged to. Users are members of any number of teams.

An organization's administrator makes and changes them; a person sees those that it is a member of.
"""

import datetime as dt
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import id_and_name, quoted, tenant_name, the_only
from gateway.admin.organizations import find_organization, narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.errors import Conflict

_SELECT = """
    SELECT team.id, team.name, team.organization_id, organization.name AS organization, team.created_at
    FROM team JOIN organization ON organization.id = team.organization_id
    WHERE team.deleted_at IS NULL AND organization.deleted_at IS NULL
      AND ($1::uuid IS NULL OR team.organization_id = $1) AND ($2::uuid[] IS NULL OR team.id = ANY ($2))
"""
_LOCK = "FOR UPDATE OF team"


@dataclass(frozen=True, slots=True)
class Team:
    """A team of one organization, whose names are unique there. `organization` is the organization's name."""

    id: UUID
    name: str
    organization_id: UUID
    organization: str
    created_at: dt.datetime


async def create_team(db: Database, scope: Scope, name: str, *, organization: str) -> Team:
    """Make a team in an organization (id or name).

    Raises InvalidRequest, NotFound, Conflict for a taken name, Forbidden for a person of the organization.
    """
    tenant_name(name)
    owner = await find_organization(db, scope, organization)
    scope.require_organization("create teams")
    try:
        row = await db.fetchrow(
            "INSERT INTO team (organization_id, name) VALUES ($1, $2) RETURNING id, created_at", owner.id, name
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(name, owner.name) from error
    assert row is not None, "RETURNING returns"
    return Team(row["id"], name, owner.id, owner.name, row["created_at"])


async def find_team(
    db: Database, scope: Scope, reference: str, *, organization: str | None = None, lock: bool = False
) -> Team:
    """Return the team with this id or name, with `lock` held until the transaction ends.

    Raises NotFound, and InvalidRequest when the name occurs in several organizations of the scope and none is given.
    """
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"{_SELECT} AND (team.id = $3 OR team.name = $4) LIMIT 2 {_LOCK if lock else ''}",
        scope.organization_id,
        scope.visible_teams,
        *id_and_name(reference),
    )
    return Team(**the_only(rows, "team", reference))


async def list_teams(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, *, organization: str | None = None, name: str | None = None
) -> list[Team]:
    """Return the teams within the scope, one page, by id; with `name` those whose name holds it.

    Raises NotFound when `organization` is not within the scope.
    """
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($3::uuid IS NULL OR team.id > $3)
            AND ($4::text IS NULL OR position(lower($4) IN lower(team.name)) > 0)
        ORDER BY team.id LIMIT $5
        """,
        scope.organization_id,
        scope.visible_teams,
        page.after,
        name,
        page.limit,
    )
    return [Team(**row) for row in rows]


async def rename_team(db: Database, scope: Scope, team: Team, name: str) -> Team:
    """Give a team, held by a lock, another name.

    Raises InvalidRequest, Conflict for a taken name, Forbidden for a person of the organization.
    """
    scope.require_organization("rename teams")
    try:
        await db.execute(
            "UPDATE team SET name = $3 WHERE organization_id = $1 AND id = $2", *_key(team), tenant_name(name)
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(name, team.organization) from error
    return replace(team, name=name)


async def delete_team(db: Database, scope: Scope, reference: str, *, organization: str | None = None) -> Team:
    """Delete a team (id or name) for ever: its keys are revoked, which acts within a second; its name is free again.

    Its members stay users of the organization. Raises NotFound, InvalidRequest as `find_team` does, and Forbidden for
    a person of the organization.
    """
    team = await find_team(db, scope, reference, organization=organization)
    scope.require_organization("delete teams")
    await db.execute("UPDATE team SET deleted_at = now() WHERE organization_id = $1 AND id = $2", *_key(team))
    await db.execute(
        "UPDATE api_key SET revoked_at = now() WHERE organization_id = $1 AND team_id = $2 AND revoked_at IS NULL",
        *_key(team),
    )
    await db.execute("DELETE FROM membership WHERE organization_id = $1 AND team_id = $2", *_key(team))
    return team


def _key(team: Team) -> tuple[UUID, UUID]:
    return team.organization_id, team.id


def _taken(name: str, organization: str) -> Conflict:
    message = f"a team named {quoted(name)} exists already in organization {quoted(organization)}"
    return Conflict(message, param="name")
