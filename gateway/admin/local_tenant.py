"""The organization `local`, whose everything is that is used without keys (`auth: none`): made where it is missing.

Repeating it is harmless, also by several replicas at once. The key's text is forgotten as soon as it is made: its row
is what requests without keys stand for, and opens nothing where keys are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from gateway.admin.caller import Caller, set_actor
from gateway.admin.database import transaction_in
from gateway.admin.keys import KeyFilter, NewApiKey, create_key, list_keys
from gateway.admin.organizations import create_organization, find_organization
from gateway.admin.page import Page
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team, find_team
from gateway.authenticate.key_store import KeyStore
from gateway.authenticate.local_key import LocalKey
from gateway.errors import ConfigError, NotFound, StorageUnavailable

if TYPE_CHECKING:
    from gateway.admin.database import Database, Pool
    from gateway.authenticate.key import Peppers
    from gateway.settings import Settings

LOCAL: Final = "local"
"""What the organization, its team and its key are called."""

_KEYS_MAX = 1000
"""Of so many keys of the team the one is looked for."""

_ADVISORY_LOCK = 0x70656E5F6C6F636C  # "pen_locl" in ASCII: two starts at once make one tenant
_NOT_ALLOWED = (
    "auth: none needs an organization, a team and a key that are called 'local', and this role of Postgres may not make"
    " them; as one that administers: penstock org create local && penstock team create local --org local"
    " && penstock key create --org local --team local --name local"
)

_log = structlog.get_logger("penstock.app")


async def local_key(settings: Settings, pool: Pool, peppers: Peppers) -> LocalKey | None:
    """Return the key that requests stand for where none is needed; None where callers show keys.

    It is made with its team and organization where they are missing. Raises ConfigError when they are and the role of
    Postgres may not make them; StorageUnavailable when Postgres is away.
    """
    if settings.auth == "keys":
        return None
    public_id = await ensure_local_tenant(pool, peppers)
    _log.warning("no_key_needed", host=settings.host, anywhere=settings.auth_none_anywhere)
    return LocalKey(public_id, KeyStore(pool))


async def ensure_local_tenant(pool: Pool, peppers: Peppers) -> str:
    """Return the public id of the local key, made where it is missing. Raises as `local_key` does."""
    async with transaction_in(pool, readonly=True) as db:
        found = await _find(db)
    return found or await _make(pool, peppers)


async def _make(pool: Pool, peppers: Peppers) -> str:
    try:
        async with transaction_in(pool) as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
            if (found := await _find(db)) is not None:
                return found
            await set_actor(db, Caller("local", "", LOCAL, PLATFORM), address="", agent="auth: none", request_id="")
            scope = await _ensure_team(db)
            created = await create_key(db, scope, peppers, NewApiKey(team=LOCAL, name=LOCAL))
            return created.about.public_id
    except StorageUnavailable as error:
        if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            raise ConfigError(_NOT_ALLOWED) from None
        raise


async def _find(db: Database) -> str | None:
    """Return the public id of the key that counts, the oldest where there are several."""
    try:
        scope = Scope((await find_organization(db, PLATFORM, LOCAL)).id)
        wanted = KeyFilter(team=LOCAL, name=LOCAL, status="active")
        keys = await list_keys(db, scope, Page(limit=_KEYS_MAX), wanted)
    except NotFound:
        return None
    named = [(key.created_at, key.public_id) for key in keys if key.name == LOCAL and key.user_id is None]
    return min(named)[1] if named else None


async def _ensure_team(db: Database) -> Scope:
    try:
        organization = await find_organization(db, PLATFORM, LOCAL)
    except NotFound:
        organization = await create_organization(db, PLATFORM, LOCAL)
    scope = Scope(organization.id)
    try:
        await find_team(db, scope, LOCAL)
    except NotFound:
        await create_team(db, scope, LOCAL, organization=str(organization.id))
    return scope
