"""Who the caller is: what it may do, and the teams that it is in."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway.admin.caller import Caller
from gateway.admin.database import Database
from gateway.admin.scope import MembershipRole, Role

TEAMS_MAX = 1000

_PERSON = """
    SELECT app_user.organization_id, organization.name AS organization, app_user.email
    FROM app_user JOIN organization ON organization.id = app_user.organization_id
    WHERE ($1::uuid IS NULL OR app_user.organization_id = $1) AND app_user.id = $2
"""
_TEAMS = f"""
    SELECT team.id, team.name, membership.role
    FROM membership JOIN team ON team.organization_id = membership.organization_id AND team.id = membership.team_id
    WHERE membership.organization_id = $1 AND membership.user_id = $2 AND team.deleted_at IS NULL
    ORDER BY team.name LIMIT {TEAMS_MAX}
"""  # noqa: S608 - a number of this module


@dataclass(frozen=True, slots=True)
class OwnTeam:
    """A team that the caller is in, and as what."""

    id: UUID
    name: str
    role: MembershipRole


@dataclass(frozen=True, slots=True)
class Me:
    """The caller. `kind` is what it showed: an admin key of nobody, or what makes it a person.

    `id` is the admin key's or the user's. `organization` is a name, null for one of the whole platform.
    """

    kind: Literal["admin_key", "user", "local"]
    id: str
    name: str
    role: Role
    organization_id: UUID | None
    organization: str | None
    email: str | None
    teams: tuple[OwnTeam, ...]
    admin_key: str | None


async def describe(db: Database, caller: Caller) -> Me:
    """Return who calls."""
    scope = caller.scope
    organization_id, organization, email = scope.organization_id, None, None
    teams: tuple[OwnTeam, ...] = ()
    if scope.user_id is not None:
        row = await db.fetchrow(_PERSON, scope.organization_id, scope.user_id)
        assert row is not None, "recognised in this transaction"
        organization_id, organization, email = row["organization_id"], row["organization"], row["email"]
        found = await db.fetch(_TEAMS, organization_id, scope.user_id)
        teams = tuple(OwnTeam(each["id"], each["name"], MembershipRole(each["role"])) for each in found)
    elif organization_id is not None:
        organization = await db.fetchval("SELECT name FROM organization WHERE id = $1", organization_id)
    return Me(
        kind=caller.kind,
        id=caller.id,
        name=caller.name,
        role=scope.role,
        organization_id=organization_id,
        organization=organization,
        email=email,
        teams=teams,
        admin_key=caller.credential,
    )
