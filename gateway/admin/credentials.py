"""Admin credentials: the keys of the control-plane API, of the platform, of an organization or of a person in one."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from gateway.admin.caller import Caller
from gateway.admin.database import Database
from gateway.admin.names import as_id, checked_name
from gateway.admin.organizations import narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import PersonRole, Role, Scope
from gateway.admin.users import find_user
from gateway.authenticate.key import ADMIN_PREFIX, Peppers, make_key, parse_key
from gateway.errors import Conflict, InvalidKey, InvalidRequest, NotFound

_LOCK = "FOR UPDATE OF held"

PERSON_LIFETIME_DEFAULT: Final = dt.timedelta(days=30)
PERSON_LIFETIME_MAX: Final = dt.timedelta(days=90)
"""How long a credential counts that a person who administers no organization has made itself."""

# A person reaches its own; one without a user is of the whole organization, one without that of the platform.
_SELECT = """
    SELECT held.id, held.public_id, held.name,
        CASE WHEN held.revoked_at IS NOT NULL THEN 'revoked' WHEN held.expires_at <= now() THEN 'expired'
            ELSE 'active' END AS status,
        held.organization_id, organization.name AS organization, held.user_id, app_user.name AS "user", held.source,
        held.expires_at, held.revoked_at, held.created_at
    FROM admin_credential AS held
        LEFT JOIN organization ON organization.id = held.organization_id
        LEFT JOIN app_user ON app_user.organization_id = held.organization_id AND app_user.id = held.user_id
    WHERE ($1::uuid IS NULL OR held.organization_id = $1) AND ($2::boolean OR held.user_id = $3)
"""


@dataclass(frozen=True, slots=True)
class AdminCredential:
    """A credential without its secret. `organization` and `user` are names, null: not bound to one.

    `source`: whether it was made by hand, or by signing in with an identity provider.
    """

    id: UUID
    public_id: str
    name: str
    status: Literal["active", "expired", "revoked"]
    organization_id: UUID | None
    organization: str | None
    user_id: UUID | None
    user: str | None
    source: str
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class CreatedCredential:
    """A credential just made. `key` is its whole text, which is never shown again."""

    key: str = field(repr=False)
    about: AdminCredential


async def create_admin_credential(
    db: Database,
    scope: Scope,
    peppers: Peppers,
    *,
    name: str = "",
    expires_in: dt.timedelta | None = None,
    organization: str | None = None,
    user: str | None = None,
) -> CreatedCredential:
    """Make a credential under the newest pepper, never of a wider reach than the caller's.

    It is of a `user` (id or name) and reaches what that one does; else of an `organization`, else of all that the
    caller reaches. A person who administers no organization makes its own alone, which expire.

    Raises InvalidRequest, NotFound for the organization or the user, Forbidden.
    """
    if name:
        checked_name(name)
    within = await narrowed(db, scope, organization)
    if user is None and within.teams is None:
        organization_id, user_id = within.organization_id, None
    else:
        person = await find_user(db, within, str(scope.user_id) if user is None else user)
        if scope.teams is not None and person.id != scope.user_id:
            scope.require_organization("make admin keys of others")
        scope.require_grant(person.role)
        organization_id, user_id = person.organization_id, person.id
    if scope.teams is not None:
        expires_in = PERSON_LIFETIME_DEFAULT if expires_in is None else expires_in
        if expires_in > PERSON_LIFETIME_MAX:
            raise InvalidRequest(f"expires_in is longer than {PERSON_LIFETIME_MAX.days} days", param="expires_in")
    key = make_key(peppers, ADMIN_PREFIX)
    row = await db.fetchrow(
        """
        INSERT INTO admin_credential
            (public_id, secret_hmac, pepper_version, name, expires_at, organization_id, user_id)
        VALUES ($1, $2, $3, $4, now() + $5::interval, $6, $7) RETURNING id
        """,
        key.public_id,
        key.secret_hmac,
        key.pepper_version,
        name,
        expires_in,
        organization_id,
        user_id,
    )
    assert row is not None, "RETURNING returns"
    return CreatedCredential(key.text, await find_admin_credential(db, scope, str(row["id"])))


async def find_admin_credential(db: Database, scope: Scope, reference: str, *, lock: bool = False) -> AdminCredential:
    """Return the credential with this id, public id or text, with `lock` held until the transaction ends.

    Raises NotFound.
    """
    parsed = parse_key(reference, ADMIN_PREFIX)
    public_id = parsed.public_id if parsed else reference.removeprefix(ADMIN_PREFIX)
    known = public_id if public_id.isascii() and public_id.isalnum() else None
    row = await db.fetchrow(
        f"{_SELECT} AND (held.id = $4 OR held.public_id = $5) {_LOCK if lock else ''}",
        *_reach(scope),
        as_id(reference),
        known,
    )
    if row is None:
        raise NotFound("no admin key with this id", param="admin_key")
    return AdminCredential(**row)


async def list_admin_credentials(
    db: Database,
    scope: Scope,
    page: Page = FIRST_PAGE,
    *,
    organization: str | None = None,
    user: str | None = None,
    name: str | None = None,
    active: bool = False,
) -> list[AdminCredential]:
    """Return the credentials within the scope, one page, by id; with `active` those alone that count.

    `name` is a part of the name. Raises NotFound when `organization` or `user` is not within the scope.
    """
    within = await narrowed(db, scope, organization)
    user_id = None if user is None else (await find_user(db, within, user)).id
    rows = await db.fetch(
        f"""
        {_SELECT} AND ($4::uuid IS NULL OR held.id > $4) AND ($5::uuid IS NULL OR held.user_id = $5)
            AND ($6::text IS NULL OR position(lower($6) IN lower(held.name)) > 0)
            AND (NOT $7::boolean OR (held.revoked_at IS NULL AND (held.expires_at IS NULL OR held.expires_at > now())))
        ORDER BY held.id LIMIT $8
        """,
        *_reach(within),
        page.after,
        user_id,
        name,
        active,
        page.limit,
    )
    return [AdminCredential(**row) for row in rows]


async def revoke_admin_credential(
    db: Database,
    scope: Scope,
    reference: str,
    *,
    keep_last: bool = False,
    check: Callable[[AdminCredential], None] | None = None,
) -> AdminCredential:
    """Revoke the credential with this id, public id or text; again changes nothing.

    With `keep_last`, not the last one that administers the platform, without which nobody could make another over
    HTTP. `check` is shown the credential, held, and may refuse. Raises NotFound, Conflict, what `check` raises,
    and Forbidden for that of a person with a wider role.
    """
    # All of them are held, in one order: of two that are revoked at once, the second sees what the first has done.
    counting = await platform_credentials(db, scope) if keep_last and scope.role is Role.PLATFORM_ADMIN else []
    credential = await find_admin_credential(db, scope, reference, lock=True)
    if credential.user_id is not None:
        role = await db.fetchval(
            "SELECT role FROM app_user WHERE organization_id = $1 AND id = $2",
            credential.organization_id,
            credential.user_id,
        )
        scope.require_grant(PersonRole(role))
    if check is not None:
        check(credential)
    if counting == [credential.id]:
        raise Conflict(
            "this is the last admin key of the platform: make another first, or revoke it beside the database with"
            " penstock admin-key revoke",
            param="admin_key",
        )
    await db.execute(
        """
        UPDATE admin_credential SET revoked_at = now()
        WHERE ($1::uuid IS NULL OR organization_id = $1) AND id = $2 AND revoked_at IS NULL
        """,
        scope.organization_id,
        credential.id,
    )
    return await find_admin_credential(db, scope, str(credential.id))


async def platform_credentials(db: Database, scope: Scope) -> list[UUID]:
    """Return the ids of the credentials that administer the platform and count now, held until the transaction ends.

    Raises Forbidden outside the platform.
    """
    scope.require_platform("list admin keys of the platform")
    rows = await db.fetch(
        """
        SELECT id FROM admin_credential
        WHERE ($1::uuid IS NULL OR organization_id = $1) AND organization_id IS NULL
            AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
        ORDER BY id FOR UPDATE
        """,
        scope.organization_id,
    )
    return [row["id"] for row in rows]


def _reach(scope: Scope) -> tuple[UUID | None, bool, UUID | None]:
    return scope.organization_id, scope.teams is None, scope.user_id


TEAMS_OF_USER: Final = """
    ARRAY(SELECT team_id FROM membership
             JOIN team ON team.organization_id = membership.organization_id AND team.id = membership.team_id
           WHERE membership.organization_id = app_user.organization_id AND membership.user_id = app_user.id
             AND team.deleted_at IS NULL) AS member_of,
    ARRAY(SELECT team_id FROM membership
             JOIN team ON team.organization_id = membership.organization_id AND team.id = membership.team_id
           WHERE membership.organization_id = app_user.organization_id AND membership.user_id = app_user.id
             AND membership.role = 'team_admin' AND team.deleted_at IS NULL) AS administered
"""
"""Columns of a statement over `app_user`: the teams that the user is in, and those of them that it administers."""

# unscoped: tells who calls, and so which organization; the secret is what has to fit
_REACH = f"""
    SELECT held.id, held.public_id, held.name, held.secret_hmac, held.pepper_version, held.organization_id,
        held.user_id, app_user.name AS "user", app_user.role,
        {TEAMS_OF_USER}
    FROM admin_credential AS held
        LEFT JOIN organization ON organization.id = held.organization_id
        LEFT JOIN app_user ON app_user.organization_id = held.organization_id AND app_user.id = held.user_id
    WHERE held.public_id = $1 AND held.revoked_at IS NULL AND (held.expires_at IS NULL OR held.expires_at > now())
      AND organization.deleted_at IS NULL AND app_user.deleted_at IS NULL
"""  # noqa: S608 - constants of this module


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
