"""Sessions of people who signed in: admin credentials of source `oidc`, which end by themselves within hours."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from gateway.admin.database import Database
from gateway.admin.scope import Role
from gateway.admin.sign_in.people import Person
from gateway.authenticate.key import ADMIN_PREFIX, Peppers, make_key

SESSIONS_MAX: Final = 20
"""How many sessions of one person go on at once: one more ends the oldest."""

KEPT_DAYS: Final = 30
"""How long a session that has ended can still be looked up by what the audit log says."""


@dataclass(frozen=True, slots=True)
class TeamOfPerson:
    """A team that somebody is in, and as what."""

    id: UUID
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Session:
    """What signing in is answered with; `credential` is shown only now."""

    credential: str = field(repr=False)
    expires_at: dt.datetime
    user_id: UUID
    user: str
    email: str | None
    role: Role
    organization_id: UUID
    organization: str
    teams: tuple[TeamOfPerson, ...]


async def begin_session(db: Database, peppers: Peppers, person: Person, lifetime: dt.timedelta) -> Session:
    """Make a session of a person. What has ended long ago goes, and beyond SESSIONS_MAX the oldest ends."""
    who = (person.organization_id, person.id)
    await db.execute(
        """
        DELETE FROM admin_credential
        WHERE organization_id = $1 AND user_id = $2 AND source = 'oidc' AND expires_at < now() - $3::interval
        """,
        *who,
        dt.timedelta(days=KEPT_DAYS),
    )
    await db.execute(
        """
        UPDATE admin_credential SET revoked_at = now() WHERE organization_id = $1 AND user_id = $2 AND id IN (
            SELECT id FROM admin_credential
            WHERE organization_id = $1 AND user_id = $2 AND source = 'oidc' AND revoked_at IS NULL
              AND expires_at > now()
            ORDER BY created_at DESC OFFSET $3)
        """,
        *who,
        SESSIONS_MAX - 1,
    )
    key = make_key(peppers, ADMIN_PREFIX)
    expires_at = await db.fetchval(
        """
        INSERT INTO admin_credential
            (public_id, secret_hmac, pepper_version, name, expires_at, organization_id, user_id, source)
        VALUES ($1, $2, $3, $4, now() + $5::interval, $6, $7, 'oidc') RETURNING expires_at
        """,
        key.public_id,
        key.secret_hmac,
        key.pepper_version,
        person.name,
        lifetime,
        *who,
    )
    return await _described(db, person, key.text, expires_at)


async def end_session(db: Database, public_id: str) -> bool:
    """End the session that this credential is; False when it is none, but an admin key that somebody made."""
    ended = await db.fetchval(
        # unscoped: ends the very session that was shown
        """
        UPDATE admin_credential SET revoked_at = now()
        WHERE public_id = $1 AND source = 'oidc' AND revoked_at IS NULL RETURNING id
        """,
        public_id,
    )
    return ended is not None


async def _described(db: Database, person: Person, credential: str, expires_at: dt.datetime) -> Session:
    row = await db.fetchrow(
        """
        SELECT app_user.email, app_user.role, organization.name AS organization
        FROM app_user JOIN organization ON organization.id = app_user.organization_id
        WHERE app_user.organization_id = $1 AND app_user.id = $2
        """,
        person.organization_id,
        person.id,
    )
    assert row is not None, "the person was brought in step in this transaction"
    teams = await db.fetch(
        """
        SELECT team.id, team.name, membership.role FROM membership
            JOIN team ON team.organization_id = membership.organization_id AND team.id = membership.team_id
        WHERE membership.organization_id = $1 AND membership.user_id = $2 AND team.deleted_at IS NULL
        ORDER BY team.name
        """,
        person.organization_id,
        person.id,
    )
    return Session(
        credential=credential,
        expires_at=expires_at,
        user_id=person.id,
        user=person.name,
        email=row["email"],
        role=Role(row["role"]),
        organization_id=person.organization_id,
        organization=row["organization"],
        teams=tuple(TeamOfPerson(team["id"], team["name"], Role(team["role"])) for team in teams),
    )
