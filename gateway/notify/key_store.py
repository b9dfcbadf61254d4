"""What Postgres knows of revoked keys that somebody uses: their names, for those who are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.notify.events import RevokedKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.notify.notices import RevokedUse
    from gateway.storage.postgres import PoolProxy

_REVOKED = """
SELECT k.id, k.organization_id, o.name AS organization, k.public_id, k.name, k.team_id, t.name AS team, k.user_id,
       k.revoked_at
  FROM unnest($1::uuid[], $2::uuid[]) AS used (id, organization_id)
  JOIN api_key k ON k.id = used.id AND k.organization_id = used.organization_id
  JOIN organization o ON o.id = k.organization_id
  JOIN team t ON t.id = k.team_id AND t.organization_id = k.organization_id
 WHERE k.revoked_at IS NOT NULL
"""


async def revoked(connection: PoolProxy, uses: Sequence[RevokedUse]) -> list[RevokedKey]:
    """Return the keys that were used, as far as they are revoked."""
    if not uses:
        return []
    rows = await connection.fetch(_REVOKED, [use.key_id for use in uses], [use.organization_id for use in uses])
    return [RevokedKey(**row) for row in rows]
