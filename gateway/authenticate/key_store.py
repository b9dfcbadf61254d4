"""Reads one key with everything that hangs on it from Postgres: tenant, limits, whether it still counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from gateway.authenticate.limit_rows import limits_of
from gateway.authenticate.refusals import Ended, Reason
from gateway.domain.addresses import unmapped
from gateway.domain.principal import Level, Principal
from gateway.errors import KeyStoreUnavailable
from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.storage.postgres import Pool

QUERY_S_MAX = 5.0
LOOKUPS_MAX = 32
"""Lookups on their way at once; more wait their turn within the caller's deadline."""

# The key's tenant must be whole: nothing on the way up deleted, and the user still a member of the team.
_FIND = """
SELECT k.id, k.public_id, k.secret_hmac, k.pepper_version, k.models_allowed, k.expires_at,
       k.previous_secret_hmac, k.previous_pepper_version, k.previous_expires_at, k.addresses_allowed, k.revoked_at,
       CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
            WHEN o.id IS NULL OR t.id IS NULL OR (k.user_id IS NOT NULL AND (u.id IS NULL OR NOT EXISTS (
                SELECT FROM membership m
                 WHERE m.organization_id = k.organization_id AND m.team_id = k.team_id AND m.user_id = k.user_id)))
            THEN 'orphaned'
            WHEN k.expires_at <= now() THEN 'expired' END AS ended,
       k.previous_expires_at <= now() AS replaced,
       k.organization_id, o.name AS organization, k.team_id, t.name AS team, k.user_id, u.name AS "user",
       (SELECT coalesce(json_agg(to_json(l)
                   ORDER BY array_position(ARRAY['organization', 'team', 'user', 'key'], l.level), l.model), '[]')
          FROM limit_rule l
         WHERE l.organization_id = k.organization_id
           AND (l.level, l.subject_id) IN (('organization', k.organization_id), ('team', k.team_id),
                                           ('user', k.user_id), ('key', k.id))) AS limits
  FROM api_key k
  LEFT JOIN organization o ON o.id = k.organization_id AND o.deleted_at IS NULL
  LEFT JOIN team t ON t.organization_id = k.organization_id AND t.id = k.team_id AND t.deleted_at IS NULL
  LEFT JOIN app_user u ON u.organization_id = k.organization_id AND u.id = k.user_id AND u.deleted_at IS NULL
 WHERE k.public_id = $1
"""


@dataclass(frozen=True, slots=True)
class Secret:
    """What a secret is compared with, and what it stands for while it matches."""

    meaning: Principal | Ended
    hmac: bytes = field(repr=False)
    pepper_version: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is now: its secret and, once it was rotated, the one before."""

    secrets: tuple[Secret, ...]


class KeyStore:
    """Looks keys up by public id, a bounded number at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turns = asyncio.Semaphore(LOOKUPS_MAX)

    async def find(self, public_id: str) -> StoredKey | None:
        """Return the key, also one that counts no longer (revoked, expired, tenant deleted), None for none.

        Raises:
            KeyStoreUnavailable: Postgres did not answer.
        """
        async with self._turns:
            try:
                async with borrowed(self._pool, QUERY_S_MAX) as connection:
                    row = await connection.fetchrow(_FIND, public_id)
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0) from error
        return None if row is None else _stored_key(row)


def _stored_key(row: asyncpg.Record) -> StoredKey:
    expires_at_s = _unix_s(row["expires_at"])
    previous_expires_at_s = _unix_s(row["previous_expires_at"])
    secrets = [Secret(_meaning(row, expires_at_s), row["secret_hmac"], row["pepper_version"])]
    if previous_expires_at_s is not None:
        if row["ended"] is None and row["replaced"]:
            meaning: Principal | Ended = _ended(row, Reason.REPLACED, previous_expires_at_s)
        else:
            meaning = _meaning(row, _earlier(expires_at_s, previous_expires_at_s))
        secrets.append(Secret(meaning, row["previous_secret_hmac"], row["previous_pepper_version"]))
    return StoredKey(tuple(secrets))


def _meaning(row: asyncpg.Record, expires_at_s: float | None) -> Principal | Ended:
    if row["ended"] is None:
        return _principal(row, expires_at_s)
    reason = Reason(row["ended"])
    at = {Reason.REVOKED: row["revoked_at"], Reason.EXPIRED: row["expires_at"]}.get(reason)
    return _ended(row, reason, _unix_s(at))


def _ended(row: asyncpg.Record, reason: Reason, at_s: float | None) -> Ended:
    return Ended(reason, at_s, row["organization_id"], row["id"], row["public_id"])


def _principal(row: asyncpg.Record, expires_at_s: float | None) -> Principal:
    models, addresses = row["models_allowed"], row["addresses_allowed"]
    subjects = {
        Level.ORGANIZATION: row["organization_id"],
        Level.TEAM: row["team_id"],
        Level.USER: row["user_id"],
        Level.KEY: row["id"],
    }
    limited = limits_of(row["limits"], subjects)
    return Principal(
        organization_id=row["organization_id"],
        organization=row["organization"],
        team_id=row["team_id"],
        team=row["team"],
        user_id=row["user_id"],
        user=row["user"],
        key_id=row["id"],
        key_public_id=row["public_id"],
        limits=limited.rates,
        concurrency_limits=limited.concurrency,
        budgets=limited.budgets,
        output_bounds=limited.output_bounds,
        models_allowed=None if models is None else frozenset(models),
        addresses_allowed=None if addresses is None else tuple(map(unmapped, addresses)),
        expires_at_s=expires_at_s,
    )


def _unix_s(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _earlier(one_s: float | None, other_s: float) -> float:
    return other_s if one_s is None else min(one_s, other_s)
