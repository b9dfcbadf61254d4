"""The person behind an Identity in Postgres: made at the first sign-in, brought in step with its groups at each.

What an administrator has set by hand is left alone: memberships and roles know where they come from. All of it is one
transaction, in turns for each person, so that two first sign-ins at once make one user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import structlog

from gateway.admin.caller import Caller, set_actor
from gateway.admin.credentials import TEAMS_OF_USER, scope_of_user
from gateway.admin.names import NAME_CHARS_MAX, as_id, id_and_name, quoted
from gateway.admin.scope import PLATFORM, Role
from gateway.admin.sign_in.refusals import NotAdmitted
from gateway.errors import InvalidKey

if TYPE_CHECKING:
    from gateway.admin.database import Database
    from gateway.admin.sign_in.mapping import Landing
    from gateway.admin.sign_in.tokens import Identity

NAMESAKES_MAX: Final = 20
"""How many people of one name are told apart by a number; beyond it by a random suffix."""

_log = structlog.get_logger("penstock.sign_in")


@dataclass(frozen=True, slots=True)
class Person:
    """A user as it is after signing in."""

    id: UUID
    name: str
    organization_id: UUID


@dataclass(frozen=True, slots=True)
class From:
    """Where a sign-in comes from, for the audit log."""

    address: str = ""
    agent: str = ""
    request_id: str = ""


async def bring_in_step(db: Database, identity: Identity, place: Landing, origin: From) -> Person:
    """Make the person of `identity` what `place` says, and return it. Changes nothing where nothing has changed.

    Raises:
        NotAdmitted: the organization does not exist, the person was deleted, or is a user of another organization.
    """
    who = f"{identity.issuer} {identity.subject}"
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", who)
    organization_id = await _organization(db, place.organization)
    person = await _known(db, identity, organization_id)
    made = person is None
    user_id = uuid4() if person is None else person.id
    caller = Caller("user", str(user_id), identity.name if person is None else person.name, PLATFORM)
    await set_actor(db, caller, address=origin.address, agent=origin.agent, request_id=origin.request_id)
    if person is None:
        person = Person(user_id, await _insert(db, user_id, organization_id, identity, place.role), organization_id)
    else:
        await _refresh(db, person, identity, place.role)
    teams = await _teams(db, organization_id, place)
    await _join(db, person, teams)
    if made:
        _log.info("user_signed_in_first", user=str(person.id), organization=str(organization_id))
    return person


async def take_away(db: Database, identity: Identity, origin: From) -> None:
    """Take from a person whose groups count no more what groups gave: teams with the keys in them, role, sessions."""
    person = await find_person(db, identity)
    if person is None:
        return
    caller = Caller("user", str(person.id), person.name, PLATFORM)
    await set_actor(db, caller, address=origin.address, agent=origin.agent, request_id=origin.request_id)
    await _refresh(db, person, identity, Role.MEMBER)
    await _join(db, person, {})
    await db.execute(
        """
        UPDATE admin_credential SET revoked_at = now()
        WHERE organization_id = $1 AND user_id = $2 AND source = 'oidc' AND revoked_at IS NULL
        """,
        person.organization_id,
        person.id,
    )


async def find_person(db: Database, identity: Identity) -> Person | None:
    """Return the user that an identity is, None when it has not signed in or was deleted."""
    row = await db.fetchrow(
        # unscoped: tells who signs in, and so which organization; the provider has vouched for the subject
        """
        SELECT app_user.id, app_user.name, app_user.organization_id
        FROM app_user JOIN organization ON organization.id = app_user.organization_id
        WHERE app_user.oidc_issuer = $1 AND app_user.oidc_subject = $2
          AND app_user.deleted_at IS NULL AND organization.deleted_at IS NULL
        """,
        identity.issuer,
        identity.subject,
    )
    return None if row is None else Person(**row)


async def person_as_caller(db: Database, identity: Identity) -> Caller:
    """Return the user that an identity is, and how far it reaches now. Raises InvalidKey when there is none."""
    row = await db.fetchrow(
        # unscoped: tells who signs in, and so which organization; the provider has vouched for the subject
        f"""
        SELECT app_user.id, app_user.name, app_user.role, app_user.organization_id,
            {TEAMS_OF_USER}
        FROM app_user JOIN organization ON organization.id = app_user.organization_id
        WHERE app_user.oidc_issuer = $1 AND app_user.oidc_subject = $2
          AND app_user.deleted_at IS NULL AND organization.deleted_at IS NULL
        """,  # noqa: S608 - constants of this package
        identity.issuer,
        identity.subject,
    )
    if row is None:
        raise InvalidKey("the token's person is no user here")
    scope = scope_of_user(
        row["role"], row["organization_id"], row["id"], row["administered"], member_of=row["member_of"]
    )
    return Caller("user", str(row["id"]), row["name"], scope)


async def _organization(db: Database, reference: str) -> UUID:
    row = await db.fetchrow(
        # unscoped: penstock.yaml says into which organization people come
        "SELECT id FROM organization WHERE deleted_at IS NULL AND (id = $1 OR name = $2)",
        *id_and_name(reference),
    )
    if row is None:
        raise NotAdmitted(f"there is no organization {quoted(reference)} here yet; ask who runs the gateway to make it")
    return UUID(str(row["id"]))


async def _known(db: Database, identity: Identity, organization_id: UUID) -> Person | None:
    """Return the user there is. Deleted ones still tell that an administrator wants this person out."""
    person = await find_person(db, identity)
    if person is not None:
        if person.organization_id == organization_id:
            return person
        raise NotAdmitted(
            "you are a user of another organization than your groups say; an administrator deletes that user first"
        )
    deleted = await db.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM app_user
            WHERE oidc_issuer = $1 AND oidc_subject = $2 AND organization_id = $3 AND deleted_at IS NOT NULL)
        """,
        identity.issuer,
        identity.subject,
        organization_id,
    )
    if deleted:
        raise NotAdmitted("your user was deleted here; ask an administrator to let you in again")
    return None


async def _insert(db: Database, user_id: UUID, organization_id: UUID, identity: Identity, role: Role) -> str:
    """Make the user, under the first name that is free, and return that."""
    name = _presentable(identity.name)
    suffixes = ["", *(f"-{number}" for number in range(2, NAMESAKES_MAX + 1)), f"-{user_id.hex[:12]}"]
    for suffix in suffixes:
        candidate = name[: NAME_CHARS_MAX - len(suffix)].rstrip() + suffix
        inserted = await db.fetchval(
            """
            INSERT INTO app_user (id, organization_id, name, role, role_source, email, oidc_issuer, oidc_subject)
            VALUES ($1, $2, $3, $4, 'oidc', $5, $6, $7)
            ON CONFLICT (organization_id, name) WHERE deleted_at IS NULL DO NOTHING RETURNING name
            """,
            user_id,
            organization_id,
            candidate,
            role,
            identity.email,
            identity.issuer,
            identity.subject,
        )
        if inserted is not None:
            return str(inserted)
    raise NotAdmitted("no name for your user is free here; ask an administrator")


def _presentable(name: str) -> str:
    """Return a name that a user may have: one that does not look like an id, and can stand in an address."""
    name = name.replace("/", "-")
    return f"user-{name}" if as_id(name) is not None or name in {".", ".."} else name


async def _refresh(db: Database, person: Person, identity: Identity, role: Role) -> None:
    await db.execute(
        """
        UPDATE app_user SET email = $3, role = CASE WHEN role_source = 'oidc' THEN $4 ELSE role END
        WHERE organization_id = $1 AND id = $2
          AND (email IS DISTINCT FROM $3 OR (role_source = 'oidc' AND role <> $4))
        """,
        person.organization_id,
        person.id,
        identity.email,
        role,
    )


async def _teams(db: Database, organization_id: UUID, place: Landing) -> dict[UUID, Role]:
    """Return the role in each team that exists; a team that does not is said in the log, and keeps nobody out."""
    found: dict[UUID, Role] = {}
    for reference, role in place.teams.items():
        team_id = await db.fetchval(
            "SELECT id FROM team WHERE organization_id = $1 AND deleted_at IS NULL AND (id = $2 OR name = $3)",
            organization_id,
            *id_and_name(reference),
        )
        if team_id is None:
            _log.warning("team_of_group_missing", organization=str(organization_id), team=quoted(reference))
        elif team_id not in found or role is Role.TEAM_ADMIN:
            found[team_id] = role
    return found


async def _join(db: Database, person: Person, teams: dict[UUID, Role]) -> None:
    """Let the memberships that groups gave be these; in a team that is left, the person's own keys end."""
    who = (person.organization_id, person.id)
    left = await db.fetch(
        """
        DELETE FROM membership
        WHERE organization_id = $1 AND user_id = $2 AND source = 'oidc' AND NOT team_id = ANY($3::uuid[])
        RETURNING team_id
        """,
        *who,
        list(teams),
    )
    if left:
        await db.execute(
            """
            UPDATE api_key SET revoked_at = now()
            WHERE organization_id = $1 AND user_id = $2 AND team_id = ANY($3::uuid[]) AND revoked_at IS NULL
            """,
            *who,
            [row["team_id"] for row in left],
        )
    await db.execute(
        """
        INSERT INTO membership (organization_id, user_id, team_id, role, source)
        SELECT $1, $2, wanted.team_id, wanted.role, 'oidc' FROM unnest($3::uuid[], $4::text[]) AS wanted (team_id, role)
        ON CONFLICT (team_id, user_id) DO UPDATE SET role = EXCLUDED.role
        WHERE membership.source = 'oidc' AND membership.role <> EXCLUDED.role
        """,
        *who,
        list(teams),
        [str(role) for role in teams.values()],
    )
