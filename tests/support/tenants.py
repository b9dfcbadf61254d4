"""Tenants for tests, made by the service functions that the `penstock` command stands on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.admin.database import transaction_on
from gateway.admin.key_changes import GRACE_DEFAULT, rotate_key, update_key
from gateway.admin.keys import NewApiKey, create_key, revoke_key
from gateway.admin.limit_values import LimitValues
from gateway.admin.limits import Subject, set_limit
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team
from gateway.admin.users import create_user
from gateway.authenticate.key import Peppers
from gateway.domain.principal import Level
from tests.support.servers import run_blocking
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from gateway.admin.key_changes import KeyChange
    from gateway.admin.limit_values import Count
    from tests.support.gateway import GatewayProcess

NO_PEPPERS = Peppers.parse("")


@dataclass(frozen=True)
class Tenant:
    """An organization with one team, one user and one key. `key` is the key's text, the rest are ids and names."""

    dsn: str
    organization: str
    organization_id: UUID
    team: str
    team_id: UUID
    user: str
    user_id: UUID
    key: str = field(repr=False)
    key_id: UUID
    key_public_id: str

    def id_of(self, level: Level) -> UUID:
        """Return the id of what limits of this level are attached to."""
        return {
            Level.ORGANIZATION: self.organization_id,
            Level.TEAM: self.team_id,
            Level.USER: self.user_id,
            Level.KEY: self.key_id,
        }[level]

    def limit(self, level: Level, *, model: str | None = None, **values: Count) -> None:
        """Set limits at a level by the names that LimitValues has for them, such as `requests_per_minute`."""
        run_blocking(_limit(self.dsn, Subject(level, str(self.id_of(level))), LimitValues.of(values), model))

    def rotate(self, grace: dt.timedelta = GRACE_DEFAULT) -> str:
        """Give the key a new secret and return its new text; `key` is the one before, which counts for `grace`."""
        return run_blocking(_rotate(self.dsn, str(self.key_id), grace))

    def change(self, change: KeyChange) -> None:
        """Change what the key may do."""
        run_blocking(_change(self.dsn, str(self.key_id), change))

    def revoke(self) -> None:
        """Revoke the key."""
        run_blocking(_revoke(self.dsn, str(self.key_id)))


def make_tenant(
    dsn: str,
    *,
    limits: Mapping[Level, Mapping[str, Count]] | None = None,
    models: Sequence[str] | None = None,
    addresses: Sequence[str] | None = None,
    expires_in: dt.timedelta | None = None,
    **key_limits: Count,
) -> Tenant:
    """Make a tenant with random names.

    Args:
        dsn: a migrated database.
        limits: values as `Tenant.limit` takes them, by level.
        models: what the key may use; None: everything.
        addresses: from where it may be used; None: from anywhere.
        expires_in: when the key expires; None: never.
        key_limits: limits of the key, such as `requests_per_minute=10`.
    """
    by_level = dict(limits or {})
    by_level[Level.KEY] = {**by_level.get(Level.KEY, {}), **key_limits}
    return run_blocking(_make(dsn, by_level, models, addresses, expires_in))


def make_tenant_heard_of(gateway: GatewayProcess, dsn: str) -> Tenant:
    """Make a tenant without limits, and wait until a replica has heard of every change that it was made by.

    One heard late takes its key out of the cache, and with Postgres away nobody puts it back. Changes are heard in the
    order of their commits: a later one tells.
    """
    made, last = make_tenant(dsn), make_tenant(dsn)
    client = gateway.http(last.key)
    assert client.get("/v1/models").status == 200
    last.revoke()
    wait_for(lambda: client.get("/v1/models").status == 401, "the change after it is heard")
    return made


async def _make(
    dsn: str,
    limits: Mapping[Level, Mapping[str, Count]],
    models: Sequence[str] | None,
    addresses: Sequence[str] | None,
    expires_in: dt.timedelta | None,
) -> Tenant:
    mark = secrets.token_hex(4)
    async with transaction_on(dsn) as db:
        organization = await create_organization(db, PLATFORM, f"org-{mark}")
        owner = str(organization.id)
        team = await create_team(db, PLATFORM, f"team-{mark}", organization=owner)
        user = await create_user(db, PLATFORM, f"user-{mark}", organization=owner, teams=[team.name])
        wanted = NewApiKey(
            team=str(team.id),
            user=str(user.id),
            models=None if models is None else tuple(models),
            addresses=None if addresses is None else tuple(addresses),
            expires_in=expires_in,
        )
        created = await create_key(db, PLATFORM, NO_PEPPERS, wanted)
        tenant = Tenant(
            dsn=dsn,
            organization=organization.name,
            organization_id=organization.id,
            team=team.name,
            team_id=team.id,
            user=user.name,
            user_id=user.id,
            key=created.key,
            key_id=created.about.id,
            key_public_id=created.about.public_id,
        )
        for level, values in limits.items():
            if values:
                await set_limit(db, PLATFORM, Subject(level, str(tenant.id_of(level))), LimitValues.of(values))
    return tenant


async def _limit(dsn: str, subject: Subject, values: LimitValues, model: str | None) -> None:
    async with transaction_on(dsn) as db:
        await set_limit(db, PLATFORM, subject, values, model=model)


async def _rotate(dsn: str, key_id: str, grace: dt.timedelta) -> str:
    async with transaction_on(dsn) as db:
        return (await rotate_key(db, PLATFORM, NO_PEPPERS, key_id, grace=grace)).key


async def _change(dsn: str, key_id: str, change: KeyChange) -> None:
    async with transaction_on(dsn) as db:
        await update_key(db, PLATFORM, key_id, change)


async def _revoke(dsn: str, key_id: str) -> None:
    async with transaction_on(dsn) as db:
        await revoke_key(db, PLATFORM, key_id)
