"""What became of what webhooks were to be told: the last deliveries of one, a ping, and sending something again."""

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from gateway.admin.database import Database
from gateway.admin.names import as_id
from gateway.admin.scope import Scope
from gateway.admin.webhooks import find_webhook
from gateway.errors import Conflict, NotFound
from gateway.notify.events import ping_event

SHOWN_MAX = 50
"""Deliveries that are shown of one webhook, the last first."""
PINGS_WAITING_MAX = 10

# unscoped: of a webhook that was found within the scope; an event of the platform has no organization
_SELECT = """
    SELECT d.event_id AS id, e.kind, e.organization_id,
        CASE WHEN d.delivered_at IS NOT NULL THEN 'delivered' WHEN d.given_up_at IS NOT NULL THEN 'given_up'
            WHEN d.attempts > 0 THEN 'failing' ELSE 'waiting' END AS status,
        d.attempts, e.created_at, d.delivered_at, d.given_up_at, d.next_attempt_at, d.last_status, d.last_error
    FROM webhook_delivery d JOIN webhook_event e ON e.id = d.event_id
    WHERE d.webhook_id = $1
"""


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One event for one webhook. `id` is the event's: the `webhook-id` that receivers see, the same at each attempt."""

    id: UUID
    kind: str
    organization_id: UUID | None
    status: str
    attempts: int
    created_at: dt.datetime
    delivered_at: dt.datetime | None
    given_up_at: dt.datetime | None
    next_attempt_at: dt.datetime | None
    last_status: int | None
    last_error: str | None


async def list_deliveries(db: Database, scope: Scope, reference: str) -> list[WebhookDelivery]:
    """Return the last deliveries of a webhook, at most SHOWN_MAX, the last first. Raises NotFound, Forbidden."""
    webhook = await find_webhook(db, scope, reference)
    # unscoped: the webhook was found within the scope
    rows = await db.fetch(f"{_SELECT} ORDER BY d.event_id DESC LIMIT $2", webhook.id, SHOWN_MAX)
    return [WebhookDelivery(**row) for row in rows]


async def ping_webhook(db: Database, scope: Scope, reference: str) -> WebhookDelivery:
    """Queue an event `webhook.test` for a webhook, whatever it is for.

    Raises NotFound, Forbidden, Conflict for a disabled one, or when many pings wait already.
    """
    webhook = await find_webhook(db, scope, reference)
    if webhook.status == "disabled":
        raise Conflict(f"the webhook is disabled ({webhook.disabled_reason}): enable it first")
    waiting = await db.fetchval(
        # unscoped: the webhook was found within the scope
        """
        SELECT count(*) FROM webhook_delivery d JOIN webhook_event e ON e.id = d.event_id
        WHERE d.webhook_id = $1 AND d.next_attempt_at IS NOT NULL AND e.kind = 'webhook.test'
        """,
        webhook.id,
    )
    if waiting >= PINGS_WAITING_MAX:
        raise Conflict(f"{waiting} pings wait for this webhook already")
    event = ping_event(webhook.organization_id, webhook.id)
    await db.execute(
        "INSERT INTO webhook_event (id, organization_id, kind, payload, once) VALUES ($1, $2, $3, $4::jsonb, $5)",
        event.id,
        event.organization_id,
        event.kind,
        event.payload,
        event.once,
    )
    await db.execute("INSERT INTO webhook_delivery (event_id, webhook_id) VALUES ($1, $2)", event.id, webhook.id)
    # Who asks does not want to wait until a webhook that fails has its next turn.
    await db.execute("UPDATE webhook_health SET resume_at = NULL WHERE webhook_id = $1", webhook.id)
    return await _find(db, webhook.id, event.id)


async def redeliver(db: Database, scope: Scope, reference: str, event: str) -> WebhookDelivery:
    """Queue an event once more for a webhook, under the same id, whatever became of it.

    Raises NotFound, Forbidden, Conflict for a disabled webhook.
    """
    webhook = await find_webhook(db, scope, reference)
    if webhook.status == "disabled":
        raise Conflict(f"the webhook is disabled ({webhook.disabled_reason}): enable it first")
    event_id = as_id(event)
    found = await db.fetchval(
        """
        UPDATE webhook_delivery SET created_at = now(), next_attempt_at = now(), delivered_at = NULL,
            given_up_at = NULL, attempts = 0, last_status = NULL, last_error = NULL
        WHERE webhook_id = $1 AND event_id = $2 RETURNING event_id
        """,
        webhook.id,
        event_id,
    )
    if found is None:
        raise NotFound("no delivery with this id; they are kept for 7 days", param="delivery")
    await db.execute("UPDATE webhook_health SET resume_at = NULL WHERE webhook_id = $1", webhook.id)
    return await _find(db, webhook.id, found)


async def _find(db: Database, webhook_id: UUID, event_id: UUID) -> WebhookDelivery:
    # unscoped: the webhook was found within the scope
    row = await db.fetchrow(f"{_SELECT} AND d.event_id = $2", webhook_id, event_id)
    assert row is not None, "it is there, in this transaction"
    return WebhookDelivery(**row)
