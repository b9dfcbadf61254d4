"""Admin credentials: the keys of the control-plane API, of the platform, of an organization or of a person in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gateway.admin.caller import Caller
from gateway.admin.names import as_id, checked_name
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Role, Scope
from gateway.authenticate.key import ADMIN_PREFIX, make_key, parse_key
from gateway.errors import InvalidKey, NotFound

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.authenticate.key import Peppers

_SELECT = """
    SELECT id, public_id, name,
        CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired'
            ELSE 'active' END AS status,
        expires_at, revoked_at, created_at
    FROM admin_credential
"""


@dataclass(frozen=True, slots=True)
class AdminCredential:
    """A credential without its secret."""

    id: UUID
    public_id: str
    name: str
    status: Literal["active", "expired", "revoked"]
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class CreatedCredential:
    """A credential just made. `key` is its whole text, which is never shown again."""

    key: str = field(repr=False)
    about: AdminCredential


async def create_admin_credential(
    db: Database, scope: Scope, peppers: Peppers, *, name: str = "", expires_in: dt.timedelta | None = None
) -> CreatedCredential:
    """Make a credential under the newest pepper. Raises InvalidRequest, and Forbidden outside the platform."""
    scope.require_platform("create admin keys")
    if name:
        checked_name(name)
    key = make_key(peppers, ADMIN_PREFIX)
    row = await db.fetchrow(
        """
        INSERT INTO admin_credential (public_id, secret_hmac, pepper_version, name, expires_at)
        VALUES ($1, $2, $3, $4, now() + $5::interval) RETURNING id
        """,
        key.public_id,
        key.secret_hmac,
        key.pepper_version,
        name,
        expires_in,
    )
    assert row is not None, "RETURNING returns"
    return CreatedCredential(key.text, await _find(db, str(row["id"])))


async def list_admin_credentials(db: Database, scope: Scope, page: Page = FIRST_PAGE) -> list[AdminCredential]:
    """Return the credentials, one page, by id. Raises Forbidden outside the platform."""
    scope.require_platform("list admin keys")
    rows = await db.fetch(f"{_SELECT} WHERE ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2", page.after, page.limit)
    return [AdminCredential(**row) for row in rows]


async def revoke_admin_credential(db: Database, scope: Scope, reference: str) -> AdminCredential:
    """Revoke the credential with this id, public id or text; again changes nothing. Raises NotFound, Forbidden."""
    scope.require_platform("revoke admin keys")
    credential = await _find(db, reference)
    await db.execute(
        "UPDATE admin_credential SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", credential.id
    )
    return await _find(db, str(credential.id))


_REACH = """
    SELECT held.id, held.public_id, held.name, held.secret_hmac, held.pepper_version, held.organization_id,
        held.user_id, app_user.name AS "user", app_user.role,
        ARRAY(SELECT team_id FROM membership JOIN team ON team.id = membership.team_id
               WHERE membership.organization_id = held.organization_id AND membership.user_id = held.user_id
                 AND team.deleted_at IS NULL) AS member_of,
        ARRAY(SELECT team_id FROM membership JOIN team ON team.id = membership.team_id
               WHERE membership.organization_id = held.organization_id AND membership.user_id = held.user_id
                 AND membership.role = 'team_admin' AND team.deleted_at IS NULL) AS administered
    FROM admin_credential AS held
        LEFT JOIN organization ON organization.id = held.organization_id
        LEFT JOIN app_user ON app_user.organization_id = held.organization_id AND app_user.id = held.user_id
    WHERE held.public_id = $1 AND held.revoked_at IS NULL AND (held.expires_at IS NULL OR held.expires_at > now())
      AND organization.deleted_at IS NULL AND app_user.deleted_at IS NULL
"""


async def verify_admin_credential(db: Database, peppers: Peppers, token: str) -> Caller:
    """Return who shows an admin key, and how far it reaches now. Raises InvalidKey, without saying why.

    A token that is not well-formed never reaches the database; the secret is compared in constant time.
    """
    parsed = parse_key(token, ADMIN_PREFIX)
    if parsed is None:
        raise InvalidKey("not a valid admin key")
    row = await db.fetchrow(_REACH, parsed.public_id)
    if row is None or not peppers.matches(parsed.secret, row["secret_hmac"], row["pepper_version"]):
        raise InvalidKey("not a valid admin key")
    if row["user_id"] is None:
        scope = Scope(row["organization_id"])
        return Caller("admin_key", str(row["id"]), row["name"], scope, row["public_id"])
    scope = scope_of_user(
        row["role"], row["organization_id"], row["user_id"], row["administered"], member_of=row["member_of"]
    )
    return Caller("user", str(row["user_id"]), row["user"], scope, row["public_id"])


def scope_of_user(
    role: str, organization_id: UUID, user_id: UUID, administered: Sequence[UUID], *, member_of: Sequence[UUID]
) -> Scope:
    """Return the reach of a person of this role, who administers some of the teams that it is a member of."""
    if role == Role.PLATFORM_ADMIN:
        return Scope(None, user_id, None, tuple(member_of))
    if role == Role.ORGANIZATION_ADMIN:
        return Scope(organization_id, user_id, None, tuple(member_of))
    return Scope(organization_id, user_id, tuple(administered), tuple(member_of))


async def _find(db: Database, reference: str) -> AdminCredential:
    parsed = parse_key(reference, ADMIN_PREFIX)
    public_id = parsed.public_id if parsed else reference.removeprefix(ADMIN_PREFIX)
    known = public_id if public_id.isascii() and public_id.isalnum() else None
    row = await db.fetchrow(f"{_SELECT} WHERE id = $1 OR public_id = $2", as_id(reference), known)
    if row is None:
        raise NotFound("no admin key with this id", param="admin_key")
    return AdminCredential(**row)
