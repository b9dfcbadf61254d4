"""The outbox: events in Postgres, each with a delivery for every webhook that wants it, in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.notify.events import Event
    from gateway.storage.postgres import Connection, PoolProxy

WAITING_MAX = 1000
"""Deliveries that wait for one webhook; while there are that many, what happens is not queued for it."""

EVENTS_MAX = 1000
"""Events written by one statement."""

# An event that nobody wants is not kept: it would be told nobody later either. Its deliveries are of the same
# statement, so an event is never there without them.
_TELL = """
WITH event AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
        AS e (id, organization_id, kind, payload, once)
), told AS (
    INSERT INTO webhook_event (id, organization_id, kind, payload, once)
    SELECT id, organization_id, kind, payload::jsonb, once FROM event e
     WHERE EXISTS (SELECT FROM webhook w WHERE (w.organization_id = e.organization_id OR w.organization_id IS NULL)
                      AND w.disabled_at IS NULL AND e.kind = ANY (w.events))
    ON CONFLICT (once) DO NOTHING
    RETURNING id, organization_id, kind
), wanted AS (
    SELECT t.id AS event_id, w.id AS webhook_id, (SELECT count(*) FROM (
            SELECT FROM webhook_delivery d WHERE d.webhook_id = w.id AND d.next_attempt_at IS NOT NULL LIMIT $6
        ) AS waiting) >= $6 AS full
      FROM told t JOIN webhook w ON (w.organization_id = t.organization_id OR w.organization_id IS NULL)
       AND w.disabled_at IS NULL AND t.kind = ANY (w.events)
), queued AS (
    INSERT INTO webhook_delivery (event_id, webhook_id) SELECT event_id, webhook_id FROM wanted WHERE NOT "full"
)
SELECT (SELECT count(*) FROM told) AS told, (SELECT count(*) FROM wanted WHERE "full") AS dropped
"""


async def tell(connection: Connection | PoolProxy, events: Sequence[Event]) -> tuple[int, int]:
    """Write events, those that were written before under the same name left out.

    Returns:
        How many were new and wanted, and how many deliveries were not queued, WAITING_MAX being reached.
    """
    told = dropped = 0
    for start in range(0, len(events), EVENTS_MAX):
        part = events[start : start + EVENTS_MAX]
        row = await connection.fetchrow(
            _TELL,
            [event.id for event in part],
            [event.organization_id for event in part],
            [event.kind for event in part],
            [event.payload for event in part],
            [event.once for event in part],
            WAITING_MAX,
        )
        assert row is not None, "an aggregate has a row"
        told, dropped = told + row["told"], dropped + row["dropped"]
    return told, dropped
