"""Reads one key with everything that hangs on it from Postgres: tenant, limits, whether it still counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from gateway.authenticate.limit_rows import limits_of
from gateway.domain.principal import Level, Principal
from gateway.errors import KeyStoreUnavailable
from gateway.storage.postgres import AWAY_ERRORS, borrowed

if TYPE_CHECKING:
    from gateway.storage.postgres import Pool

QUERY_S_MAX = 5.0
LOOKUPS_MAX = 32
"""Lookups on their way at once; more wait their turn within the caller's deadline."""

# The key's tenant must be whole: nothing on the way up deleted, and the user still a member of the team.
_FIND = """
SELECT k.id, k.public_id, k.secret_hmac, k.pepper_version, k.models_allowed, k.expires_at,
       k.organization_id, o.name AS organization, k.team_id, t.name AS team, k.user_id, u.name AS "user",
       (SELECT coalesce(json_agg(to_json(l)
                   ORDER BY array_position(ARRAY['organization', 'team', 'user', 'key'], l.level), l.model), '[]')
          FROM limit_rule l
         WHERE l.organization_id = k.organization_id
           AND (l.level, l.subject_id) IN (('organization', k.organization_id), ('team', k.team_id),
                                           ('user', k.user_id), ('key', k.id))) AS limits
  FROM api_key k
  JOIN organization o ON o.id = k.organization_id AND o.deleted_at IS NULL
  JOIN team t ON t.organization_id = k.organization_id AND t.id = k.team_id AND t.deleted_at IS NULL
  LEFT JOIN app_user u ON u.organization_id = k.organization_id AND u.id = k.user_id AND u.deleted_at IS NULL
 WHERE k.public_id = $1
   AND k.revoked_at IS NULL
   AND (k.expires_at IS NULL OR k.expires_at > now())
   AND (k.user_id IS NULL OR (u.id IS NOT NULL AND EXISTS (
           SELECT FROM membership m
            WHERE m.organization_id = k.organization_id AND m.team_id = k.team_id AND m.user_id = k.user_id)))
"""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key that counts now, and what its secret is compared with."""

    principal: Principal
    secret_hmac: bytes = field(repr=False)
    pepper_version: int


class KeyStore:
    """Looks keys up by public id, a bounded number at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turns = asyncio.Semaphore(LOOKUPS_MAX)

    async def find(self, public_id: str) -> StoredKey | None:
        """Return the key, None when there is none that counts (unknown, revoked, expired, tenant deleted).

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
    models = row["models_allowed"]
    expires_at = row["expires_at"]
    subjects = {
        Level.ORGANIZATION: row["organization_id"],
        Level.TEAM: row["team_id"],
        Level.USER: row["user_id"],
        Level.KEY: row["id"],
    }
    limited = limits_of(row["limits"], subjects)
    principal = Principal(
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
        expires_at_s=None if expires_at is None else expires_at.timestamp(),
    )
    return StoredKey(principal, row["secret_hmac"], row["pepper_version"])
