"""What has to be there first: an admin key of the platform, and the demo tenant of `penstock dev`: one organization,
team, user and key, and an admin key.

Repeating it is harmless: what is there stays, and keys that still work are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.admin.caller import set_actor
from gateway.admin.credentials import create_admin_credential, platform_credentials, verify_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.keys import NewApiKey, create_key
from gateway.admin.limit_values import LimitValues
from gateway.admin.limits import Subject, set_limit
from gateway.admin.memberships import add_member
from gateway.admin.organizations import create_organization, find_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team, find_team
from gateway.admin.users import create_user, find_user
from gateway.authenticate.key import parse_key
from gateway.domain.principal import Level
from gateway.errors import Conflict, InvalidKey, NotFound

if TYPE_CHECKING:
    import datetime as dt

    from gateway.admin.caller import Caller
    from gateway.admin.credentials import CreatedCredential
    from gateway.admin.database import Database
    from gateway.authenticate.key import Peppers

DEMO_NAME: Final = "demo"
DEMO_LIMITS: Final = LimitValues(requests_per_minute=600, tokens_per_minute=2_000_000)

_FIRST_LOCK = 0x70656E5F61646D6E  # "pen_admn" in ASCII
_ADVISORY_LOCK = 0x70656E5F64656D6F  # "pen_demo" in ASCII: two starts at once make one tenant


@dataclass(frozen=True, slots=True)
class DemoKeys:
    """What a newcomer calls the gateway with. The database cannot tell them again: the caller keeps them in a file."""

    api_key: str = field(repr=False)
    admin_key: str = field(repr=False)


async def create_first_credential(
    db: Database, caller: Caller, peppers: Peppers, *, name: str, expires_in: dt.timedelta | None, force: bool = False
) -> CreatedCredential:
    """Make the admin key that all others are made with; of several at once, one is made.

    Raises Conflict when one of the platform works already, unless it is to be made all the same (`force`).
    """
    await db.execute("SELECT pg_advisory_xact_lock($1)", _FIRST_LOCK)
    await set_actor(db, caller, address="", agent="penstock bootstrap", request_id="")
    working = len(await platform_credentials(db, PLATFORM))
    if working and not force:
        keys = "1 admin key of the platform works" if working == 1 else f"{working} admin keys of the platform work"
        raise Conflict(
            f"{keys} already: make more with `penstock admin-key create`, see them with `penstock admin-key list`;"
            " if all of them are lost, say --force"
        )
    return await create_admin_credential(db, PLATFORM, peppers, name=name, expires_in=expires_in)


async def ensure_demo_tenant(dsn: str, peppers: Peppers, keep: DemoKeys | None = None) -> DemoKeys:
    """Make what is missing of the demo tenant and return its keys: those of `keep` as long as they still work.

    Raises StorageUnavailable when Postgres is away or not migrated.
    """
    async with transaction_on(dsn) as db:
        await db.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
        scope = await _ensure_organization(db)
        await _ensure_member(db, scope)
        api_key = keep.api_key if keep and await _key_works(db, scope, peppers, keep.api_key) else None
        admin_key = keep.admin_key if keep and await _admin_key_works(db, peppers, keep.admin_key) else None
        return DemoKeys(
            api_key=api_key or await _new_key(db, scope, peppers),
            admin_key=admin_key or (await create_admin_credential(db, PLATFORM, peppers, name=DEMO_NAME)).key,
        )


async def _ensure_organization(db: Database) -> Scope:
    try:
        return Scope((await find_organization(db, PLATFORM, DEMO_NAME)).id)
    except NotFound:
        return Scope((await create_organization(db, PLATFORM, DEMO_NAME)).id)


async def _ensure_member(db: Database, scope: Scope) -> None:
    organization = str(scope.organization_id)
    try:
        await find_team(db, scope, DEMO_NAME)
    except NotFound:
        await create_team(db, scope, DEMO_NAME, organization=organization)
    try:
        await find_user(db, scope, DEMO_NAME)
    except NotFound:
        await create_user(db, scope, DEMO_NAME, organization=organization)
    await add_member(db, scope, team=DEMO_NAME, user=DEMO_NAME)


async def _new_key(db: Database, scope: Scope, peppers: Peppers) -> str:
    created = await create_key(db, scope, peppers, NewApiKey(team=DEMO_NAME, user=DEMO_NAME, name=DEMO_NAME))
    await set_limit(db, scope, Subject(Level.KEY, str(created.about.id)), DEMO_LIMITS)
    return created.key


async def _key_works(db: Database, scope: Scope, peppers: Peppers, key: str) -> bool:
    parsed = parse_key(key)
    if parsed is None:
        return False
    row = await db.fetchrow(
        """
        SELECT secret_hmac, pepper_version FROM api_key
        WHERE public_id = $1 AND organization_id = $2 AND revoked_at IS NULL
            AND (expires_at IS NULL OR expires_at > now())
        """,
        parsed.public_id,
        scope.organization_id,
    )
    return row is not None and peppers.matches(parsed.secret, row["secret_hmac"], row["pepper_version"])


async def _admin_key_works(db: Database, peppers: Peppers, key: str) -> bool:
    try:
        await verify_admin_credential(db, peppers, key)
    except InvalidKey:
        return False
    return True
