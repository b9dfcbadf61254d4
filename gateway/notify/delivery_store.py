"""Deliveries in Postgres: which are due, and what became of an attempt.

Nothing is written down before an attempt: whoever is killed in the middle of one leaves it due, and the next leader
makes it again under the same id.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.notify.signing import SecretSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from gateway.storage.postgres import Connection, PoolProxy

DELIVERED_KEPT = dt.timedelta(days=7)
"""How long it can be seen what became of a delivery."""
EVENTS_KEPT = dt.timedelta(days=40)
"""Longer than any budget's period: an event that is not there any more would be told again."""
REMOVED_MAX = 10_000
"""Rows removed in one run, of each table."""

# From webhook to webhook through the index, however much waits for each of them: who does not answer, and has a
# thousand waiting, stands in nobody's way.
DUE = """
WITH RECURSIVE waiting AS (
    (SELECT webhook_id FROM webhook_delivery WHERE next_attempt_at IS NOT NULL ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM webhook_delivery d
             WHERE d.next_attempt_at IS NOT NULL AND d.webhook_id > w.webhook_id ORDER BY d.webhook_id LIMIT 1)
      FROM waiting w WHERE w.webhook_id IS NOT NULL
)
SELECT d.event_id, d.webhook_id, w.organization_id, w.url, d.attempts, d.created_at, e.payload::text AS payload,
       coalesce(h.failures, 0) AS failures, h.failing_since,
       ARRAY(SELECT s.secret_nonce FROM webhook_secret s WHERE s.webhook_id = w.id
                AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.created_at DESC) AS nonces,
       ARRAY(SELECT s.pepper_version FROM webhook_secret s WHERE s.webhook_id = w.id
                AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.created_at DESC) AS pepper_versions
  FROM waiting q JOIN webhook w ON w.id = q.webhook_id AND w.disabled_at IS NULL
  LEFT JOIN organization o ON o.id = w.organization_id
  LEFT JOIN webhook_health h ON h.webhook_id = w.id
 CROSS JOIN LATERAL (
       SELECT * FROM webhook_delivery d WHERE d.webhook_id = w.id AND d.next_attempt_at <= now()
        ORDER BY d.next_attempt_at LIMIT $2) AS d
  JOIN webhook_event e ON e.id = d.event_id
 WHERE w.id <> ALL ($1::uuid[]) AND (h.resume_at IS NULL OR h.resume_at <= now()) AND o.deleted_at IS NULL
 ORDER BY d.next_attempt_at LIMIT $3
"""

_DELIVERED = """
WITH healthy AS (
    UPDATE webhook_health SET failures = 0, failing_since = NULL, resume_at = NULL
     WHERE webhook_id = $2 AND (failures > 0 OR resume_at IS NOT NULL)
)
UPDATE webhook_delivery
   SET delivered_at = now(), next_attempt_at = NULL, attempts = attempts + 1, last_status = $3, last_error = NULL
 WHERE event_id = $1 AND webhook_id = $2 AND next_attempt_at IS NOT NULL
"""

_FAILED = """
WITH ill AS (
    INSERT INTO webhook_health AS h (webhook_id, failures, failing_since, resume_at)
    SELECT id, 1, now(), now() + make_interval(secs => $6) FROM webhook WHERE id = $2
    ON CONFLICT (webhook_id) DO UPDATE SET failures = h.failures + 1,
        failing_since = coalesce(h.failing_since, now()), resume_at = excluded.resume_at
)
UPDATE webhook_delivery
   SET attempts = attempts + 1, last_status = $3, last_error = $4,
       next_attempt_at = CASE WHEN $5::float8 IS NOT NULL THEN now() + make_interval(secs => $5) END,
       given_up_at = CASE WHEN $5 IS NULL THEN now() END
 WHERE event_id = $1 AND webhook_id = $2 AND next_attempt_at IS NOT NULL
"""

_DISABLE = """
WITH disabled AS (
    UPDATE webhook SET disabled_at = now(), disabled_reason = $2 WHERE id = $1 AND disabled_at IS NULL
)
UPDATE webhook_delivery SET next_attempt_at = NULL, given_up_at = now(), last_error = coalesce(last_error, $2)
 WHERE webhook_id = $1 AND next_attempt_at IS NOT NULL
"""

_IS_DUE = "SELECT EXISTS (SELECT FROM webhook_delivery WHERE next_attempt_at <= now())"
_IS_OLD = """
SELECT EXISTS (SELECT FROM webhook_delivery WHERE created_at < now() - $1::interval)
    OR EXISTS (SELECT FROM webhook_event WHERE created_at < now() - $2::interval)
"""

_AGE = """
SELECT coalesce(extract(epoch FROM now() - min(next_attempt_at)), 0)::float8 FROM webhook_delivery
 WHERE next_attempt_at IS NOT NULL
"""

_REMOVE = (
    """
    DELETE FROM webhook_delivery WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM webhook_delivery WHERE created_at < now() - $1::interval AND next_attempt_at IS NULL LIMIT $2))
    """,
    """
    DELETE FROM webhook_event WHERE id = ANY (ARRAY(
        SELECT id FROM webhook_event WHERE created_at < now() - $1::interval LIMIT $2))
    """,
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook, due now. `queued_at` is when it was last put into the queue."""

    event_id: UUID
    webhook_id: UUID
    organization_id: UUID | None
    url: str = field(repr=False)
    payload: str = field(repr=False)
    secrets: tuple[SecretSource, ...]
    attempts: int
    queued_at: dt.datetime
    failures: int
    failing_since: dt.datetime | None


async def is_due(connection: Connection) -> bool:
    """Return whether anything may have to be delivered."""
    found: bool = await connection.fetchval(_IS_DUE)
    return found


async def is_old(connection: Connection) -> bool:
    """Return whether there may be something to remove."""
    found: bool = await connection.fetchval(_IS_OLD, DELIVERED_KEPT, EVENTS_KEPT)
    return found


async def due(connection: PoolProxy, busy: Sequence[UUID], each_max: int, count_max: int) -> list[Delivery]:
    """Return what is due, longest first, of webhooks that are not `busy`: at most `each_max` of each."""
    rows = await connection.fetch(DUE, busy, each_max, count_max)
    return [
        Delivery(
            row["event_id"],
            row["webhook_id"],
            row["organization_id"],
            row["url"],
            row["payload"],
            tuple(SecretSource(*one) for one in zip(row["nonces"], row["pepper_versions"], strict=True)),
            row["attempts"],
            row["created_at"],
            row["failures"],
            row["failing_since"],
        )
        for row in rows
    ]


async def delivered(connection: PoolProxy, delivery: Delivery, status: int | None) -> None:
    """The receiver has it."""
    await connection.execute(_DELIVERED, delivery.event_id, delivery.webhook_id, status)


async def failed(
    connection: PoolProxy,
    delivery: Delivery,
    *,
    status: int | None,
    error: str,
    again_in_s: float | None,
    resume_in_s: float,
) -> None:
    """It is tried again in `again_in_s` seconds, None: never; nothing is sent there for `resume_in_s`."""
    await connection.execute(_FAILED, delivery.event_id, delivery.webhook_id, status, error, again_in_s, resume_in_s)


async def disable(connection: PoolProxy, webhook_id: UUID, reason: str) -> None:
    """Send there no more until somebody enables it; what waits is given up."""
    await connection.execute(_DISABLE, webhook_id, reason)


async def overdue_s(connection: PoolProxy) -> float:
    """Return for how long the delivery that is due longest has been due, in seconds; 0 when none is."""
    seconds: float = await connection.fetchval(_AGE)
    return max(seconds, 0.0)


async def remove_old(connection: PoolProxy) -> None:
    """Remove what has served its time, at most REMOVED_MAX rows of each kind."""
    for statement, kept in zip(_REMOVE, (DELIVERED_KEPT, EVENTS_KEPT), strict=True):
        await connection.execute(statement, kept, REMOVED_MAX)
