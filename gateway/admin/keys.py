"""API keys: made out to a team and optionally to one of its members, shown once, listed by public id, revoked.

Only an HMAC of the secret reaches the database. A trigger there tells every replica of a change within a second. How a
key is changed and rotated is in `gateway.admin.key_changes`.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg

from gateway.admin.database import Database
from gateway.admin.names import as_id, checked_models, checked_name, quoted
from gateway.admin.networks import checked_networks
from gateway.admin.organizations import narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.admin.teams import Team, find_team
from gateway.admin.users import find_user
from gateway.authenticate.key import KEY_PREFIX, PUBLIC_ID_CHARS, Peppers, make_key, parse_key
from gateway.domain.addresses import unmapped
from gateway.errors import Conflict, NotFound

KeyStatus: TypeAlias = Literal["active", "expired", "revoked"]

_SELECT = """
    SELECT api_key.id, api_key.public_id, api_key.name,
        CASE WHEN api_key.revoked_at IS NOT NULL THEN 'revoked'
            WHEN api_key.expires_at <= now() THEN 'expired' ELSE 'active' END AS status,
        api_key.organization_id, organization.name AS organization, api_key.team_id, team.name AS team,
        api_key.user_id, app_user.name AS "user", api_key.models_allowed AS models,
        api_key.addresses_allowed AS addresses, api_key.expires_at, api_key.revoked_at, api_key.rotated_at,
        api_key.previous_expires_at, api_key.created_at
    FROM api_key
        JOIN organization ON organization.id = api_key.organization_id
        JOIN team ON team.organization_id = api_key.organization_id AND team.id = api_key.team_id
        LEFT JOIN app_user ON app_user.organization_id = api_key.organization_id AND app_user.id = api_key.user_id
    WHERE organization.deleted_at IS NULL AND ($1::uuid IS NULL OR api_key.organization_id = $1)
        AND ($2::uuid[] IS NULL OR api_key.team_id = ANY($2) OR api_key.user_id = $3)
"""

# In words that the planner can hold against the partial indexes of api_key.
_ACTIVE: Final = "AND api_key.revoked_at IS NULL AND (api_key.expires_at IS NULL OR api_key.expires_at > now())"
_EXPIRED: Final = "AND api_key.revoked_at IS NULL AND api_key.expires_at <= now()"
_REVOKED: Final = "AND api_key.revoked_at IS NOT NULL"
_LOCK: Final = "FOR UPDATE OF api_key"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `organization`, `team` and `user` are names; `user` None: a service key of the team.

    `models` None: every model; `addresses` None: from anywhere, else networks. `public_id` is the part of the key that
    may be told. `previous_expires_at`: until when the secret before the last rotation counts, or counted, too.
    """

    id: UUID
    public_id: str
    name: str
    status: KeyStatus
    organization_id: UUID
    organization: str
    team_id: UUID
    team: str
    user_id: UUID | None
    user: str | None
    models: tuple[str, ...] | None
    addresses: tuple[str, ...] | None
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    rotated_at: dt.datetime | None
    previous_expires_at: dt.datetime | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a key is made of: its team and owner by id or name, and what it may do.

    `organization` tells teams of the same name apart. `user` None: a service key, or the caller's own where the caller
    does not administer the team. `models` None: every model; `addresses` None: from anywhere, else networks such as
    10.0.0.0/8; `expires_in` None: never expires.
    """

    team: str
    organization: str | None = None
    user: str | None = None
    name: str = ""
    models: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None
    expires_in: dt.timedelta | None = None


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys of a scope to list; None: any. `organization`, `team` and `user` are ids or names.

    `name` is a part of the name, in either case; `model` a model that the keys may use.
    """

    organization: str | None = None
    team: str | None = None
    user: str | None = None
    status: KeyStatus | None = None
    name: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made. `key` is its whole text, which is never shown again."""

    key: str = field(repr=False)
    about: ApiKey


async def create_key(db: Database, scope: Scope, peppers: Peppers, wanted: NewApiKey) -> CreatedKey:
    """Make a key under the newest pepper. Who does not administer the team makes keys of its own there.

    Raises InvalidRequest, NotFound for team or user, Conflict when the user is not a member of the team.
    """
    name = checked_name(wanted.name) if wanted.name else ""
    models = None if wanted.models is None else checked_models(wanted.models)
    addresses = None if wanted.addresses is None else checked_networks(wanted.addresses)
    team = await find_team(db, scope, wanted.team, organization=wanted.organization)
    user_id = await _holder(db, scope, team, wanted.user)
    key = make_key(peppers, KEY_PREFIX)
    row = await db.fetchrow(
        """
        INSERT INTO api_key (organization_id, team_id, user_id, public_id, secret_hmac, pepper_version, name,
            models_allowed, addresses_allowed, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::interval)
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
        addresses,
        wanted.expires_in,
    )
    assert row is not None, "RETURNING returns"
    return CreatedKey(key.text, await find_key(db, scope, str(row["id"])))


async def find_key(db: Database, scope: Scope, reference: str, *, lock: bool = False) -> ApiKey:
    """Return the key with this id or public id; the whole key will do too, and is not quoted. Raises NotFound.

    `lock` holds it against other changes until the transaction ends.
    """
    row = await db.fetchrow(
        f"{_SELECT} AND (api_key.id = $4 OR api_key.public_id = $5) {_LOCK if lock else ''}",
        *_reach(scope),
        as_id(reference),
        _public_id(reference),
    )
    if row is None:
        raise NotFound("no key with this id", param="key")
    return _key(row)


async def list_keys(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, wanted: KeyFilter | None = None
) -> list[ApiKey]:
    """Return the keys within the scope that are wanted; one page, by id. Raises NotFound for what they shall be of."""
    wanted = wanted or KeyFilter()
    scope = await narrowed(db, scope, wanted.organization)
    rows = await db.fetch(
        f"""
        {_SELECT}
            {_ACTIVE if wanted.status == "active" else ""}
            {_EXPIRED if wanted.status == "expired" else ""}
            {_REVOKED if wanted.status == "revoked" else ""}
            AND ($4::uuid IS NULL OR api_key.team_id = $4) AND ($5::uuid IS NULL OR api_key.user_id = $5)
            AND ($6::text IS NULL OR strpos(lower(api_key.name), lower($6)) > 0)
            AND ($7::text IS NULL OR api_key.models_allowed IS NULL OR $7 = ANY(api_key.models_allowed))
            AND ($8::uuid IS NULL OR api_key.id > $8)
        ORDER BY api_key.id LIMIT $9
        """,
        *_reach(scope),
        None if wanted.team is None else (await find_team(db, scope, wanted.team)).id,
        None if wanted.user is None else (await find_user(db, scope, wanted.user)).id,
        wanted.name or None,
        wanted.model,
        page.after,
        page.limit,
    )
    return [_key(row) for row in rows]


async def revoke_key(db: Database, scope: Scope, reference: str) -> ApiKey:
    """Revoke the key with this id, public id or text, for ever; again changes nothing. Raises NotFound."""
    key = await find_key(db, scope, reference, lock=True)
    await db.execute(
        "UPDATE api_key SET revoked_at = now() WHERE id = $1 AND organization_id = $2 AND revoked_at IS NULL",
        key.id,
        key.organization_id,
    )
    return await find_key(db, scope, str(key.id))


async def _holder(db: Database, scope: Scope, team: Team, reference: str | None) -> UUID | None:
    """Return the id of who shall hold a key of the team, None for a service key. Raises NotFound, Conflict."""
    if scope.teams is None or team.id in scope.teams:
        return None if reference is None else await _member(db, scope, team, reference)
    if team.id not in scope.member_of:
        raise NotFound(f"no team {quoted(team.name)}", param="team")
    user_id = await _member(db, scope, team, str(scope.user_id) if reference is None else reference)
    if user_id != scope.user_id:
        raise NotFound(f"no user {quoted(reference or '')}", param="user")
    return user_id


async def _member(db: Database, scope: Scope, team: Team, reference: str) -> UUID:
    """Return the id of a user who is a member of the team. Raises NotFound, Conflict for one that the caller sees."""
    user = await find_user(db, scope.within(team.organization_id), reference)
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


def _reach(scope: Scope) -> tuple[UUID | None, tuple[UUID, ...] | None, UUID | None]:
    """Return how far a caller sees, as the first three parameters of `_SELECT`."""
    return scope.organization_id, scope.teams, scope.user_id


def _key(row: asyncpg.Record) -> ApiKey:
    models, addresses = row["models"], row["addresses"]
    listed = {
        "models": None if models is None else tuple(models),
        "addresses": None if addresses is None else tuple(str(unmapped(network)) for network in addresses),
    }
    return ApiKey(**{**row, **listed})
