"""API keys: made out to a team and optionally to one of its members, shown once, listed by public id, revoked.

Only an HMAC of the secret reaches the database. A trigger there tells every replica of a change within a second.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import as_id, checked_models, checked_name, quoted
from gateway.admin.organizations import narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.teams import Team, find_team
from gateway.admin.users import find_user
from gateway.authenticate.key import KEY_PREFIX, PUBLIC_ID_CHARS, Peppers, make_key, parse_key
from gateway.errors import Conflict, NotFound

_SELECT = """
    SELECT api_key.id, api_key.public_id, api_key.name,
        CASE WHEN api_key.revoked_at IS NOT NULL THEN 'revoked'
            WHEN api_key.expires_at <= now() THEN 'expired' ELSE 'active' END AS status,
        api_key.organization_id, organization.name AS organization, api_key.team_id, team.name AS team,
        api_key.user_id, app_user.name AS "user", api_key.models_allowed AS models,
        api_key.expires_at, api_key.revoked_at, api_key.created_at
    FROM api_key
        JOIN organization ON organization.id = api_key.organization_id
        JOIN team ON team.id = api_key.team_id
        LEFT JOIN app_user ON app_user.id = api_key.user_id
    WHERE organization.deleted_at IS NULL AND ($1::uuid IS NULL OR api_key.organization_id = $1)
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `organization`, `team` and `user` are names; `user` None: a service key of the team.

    `models` None: every model. `public_id` is the part of the key that may be told.
    """

    id: UUID
    public_id: str
    name: str
    status: Literal["active", "expired", "revoked"]
    organization_id: UUID
    organization: str
    team_id: UUID
    team: str
    user_id: UUID | None
    user: str | None
    models: tuple[str, ...] | None
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a key is made of: its team and owner by id or name, and what it may do.

    `organization` tells teams of the same name apart. `models` None: every model; `expires_in` None: never expires.
    """

    team: str
    organization: str | None = None
    user: str | None = None
    name: str = ""
    models: tuple[str, ...] | None = None
    expires_in: dt.timedelta | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made. `key` is its whole text, which is never shown again."""

    key: str = field(repr=False)
    about: ApiKey


async def create_key(db: Database, scope: Scope, peppers: Peppers, wanted: NewApiKey) -> CreatedKey:
    """Make a key under the newest pepper.

    Raises InvalidRequest, NotFound for team or user, Conflict when the user is not a member of the team.
    """
    name = checked_name(wanted.name) if wanted.name else ""
    models = None if wanted.models is None else checked_models(wanted.models)
    team = await find_team(db, scope, wanted.team, organization=wanted.organization)
    user_id = None if wanted.user is None else await _member(db, team, wanted.user)
    key = make_key(peppers, KEY_PREFIX)
    row = await db.fetchrow(
        """
        INSERT INTO api_key (organization_id, team_id, user_id, public_id, secret_hmac, pepper_version, name,
            models_allowed, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval)
        RETURNING id
        """,
        team.organization_id,
        team.id,
        user_id,
        key.public_id,
        key.secret_hmac,
        key.pepper_version,
        name,
        models,
        wanted.expires_in,
    )
    assert row is not None, "RETURNING returns"
    return CreatedKey(key.text, await find_key(db, scope, str(row["id"])))


async def find_key(db: Database, scope: Scope, reference: str) -> ApiKey:
    """Return the key with this id or public id; the whole key will do too, and is not quoted. Raises NotFound."""
    row = await db.fetchrow(
        f"{_SELECT} AND (api_key.id = $2 OR api_key.public_id = $3)",
        scope.organization_id,
        as_id(reference),
        _public_id(reference),
    )
    if row is None:
        raise NotFound("no key with this id", param="key")
    return _key(row)


async def list_keys(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    organization: str | None = None,
    team: str | None = None,
) -> list[ApiKey]:
    """Return the keys within the scope, of one organization or team if given; one page, by id. Raises NotFound."""
    scope = await narrowed(db, scope, organization)
    team_id = None if team is None else (await find_team(db, scope, team)).id
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($2::uuid IS NULL OR api_key.team_id = $2) AND ($3::uuid IS NULL OR api_key.id > $3)
        ORDER BY api_key.id LIMIT $4
        """,
        scope.organization_id,
        team_id,
        page.after,
        page.limit,
    )
    return [_key(row) for row in rows]


async def revoke_key(db: Database, scope: Scope, reference: str) -> ApiKey:
    """Revoke the key with this id, public id or text, for ever; again changes nothing. Raises NotFound."""
    key = await find_key(db, scope, reference)
    await db.execute(
        "UPDATE api_key SET revoked_at = now() WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL",
        key.id,
        key.organization_id,
    )
    return await find_key(db, scope, str(key.id))


async def _member(db: Database, team: Team, reference: str) -> UUID:
    """Return the id of a user who is a member of the team. Raises NotFound, Conflict."""
    user = await find_user(db, Scope(team.organization_id), reference)
    row = await db.fetchrow(
        "SELECT 1 FROM membership WHERE organization_id = $1 AND team_id = $2 AND user_id = $3 FOR SHARE",
        team.organization_id,
        team.id,
        user.id,
    )
    if row is None:
        message = f"user {quoted(user.name)} is not a member of team {quoted(team.name)}: add it to the team first"
        raise Conflict(message, param="user")
    return user.id


def _public_id(reference: str) -> str | None:
    """Return the public id in a reference: alone, with the prefix, or inside a whole key."""
    parsed = parse_key(reference)
    if parsed is not None:
        return parsed.public_id
    bare = reference.removeprefix(KEY_PREFIX)
    return bare if len(bare) == PUBLIC_ID_CHARS and bare.isascii() and bare.isalnum() else None


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**{**row, "models": None if row["models"] is None else tuple(row["models"])})
