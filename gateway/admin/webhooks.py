"""Webhooks: where the gateway tells of events by itself. An organization's own hear of it, the platform's of all."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from uuid import UUID

from gateway.admin.database import Database
from gateway.admin.names import as_id
from gateway.admin.organizations import narrowed
from gateway.admin.page import FIRST_PAGE, Page
from gateway.admin.scope import Scope
from gateway.authenticate.key import Peppers
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.notify.destination import checked_url
from gateway.notify.events import KINDS
from gateway.notify.signing import SecretSource, new_source, shown

WEBHOOKS_MAX = 20
"""Webhooks of one organization; as many of the platform's own."""
DESCRIPTION_CHARS_MAX = 200
GRACE_MAX = dt.timedelta(days=7)
"""How long the secret before the last exchange may sign, too."""

DISABLED_BY_HAND = "disabled by an administrator"

_SELECT = """
    SELECT w.id, w.organization_id, o.name AS organization, w.url, w.events, w.description,
        CASE WHEN w.disabled_at IS NOT NULL THEN 'disabled' WHEN h.failures > 0 THEN 'failing' ELSE 'active' END
            AS status,
        w.disabled_reason, h.failing_since, w.created_at, w.secret_rotated_at
    FROM webhook w LEFT JOIN organization o ON o.id = w.organization_id
    LEFT JOIN webhook_health h ON h.webhook_id = w.id
    WHERE ($1::uuid IS NULL OR w.organization_id = $1) AND o.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook without its secret. `organization` None: it hears of every organization.

    `status`: `active`, `failing` (tried again since `failing_since`) or `disabled` for `disabled_reason`.
    """

    id: UUID
    organization_id: UUID | None
    organization: str | None
    url: str
    events: tuple[str, ...]
    description: str
    status: str
    disabled_reason: str | None
    failing_since: dt.datetime | None
    created_at: dt.datetime
    secret_rotated_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class CreatedWebhook:
    """A webhook, and its secret: it can be worked out again and is never shown again."""

    about: Webhook
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What to change; None leaves a thing as it is."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    enabled: bool | None = None


async def create_webhook(
    db: Database,
    scope: Scope,
    peppers: Peppers,
    *,
    url: str,
    events: Sequence[str] | None = None,
    description: str = "",
    organization: str | None = None,
) -> CreatedWebhook:
    """Make a webhook for an organization (id or name); None: the caller's own, or for the platform every one.

    Args:
        events: what it is for, of `KINDS`; None: all there are today.

    Raises InvalidRequest, NotFound, Forbidden for who administers no organization, Conflict when there are too many.
    """
    scope.require_organization("create webhooks")
    wanted = _checked_events(KINDS if events is None else events)
    checked = checked_url(url), _checked_description(description)
    owner = (await narrowed(db, scope, organization)).organization_id
    # Two at once count one after the other.
    await db.execute("SELECT pg_advisory_xact_lock(hashtextextended('penstock webhooks ' || $1, 0))", str(owner))
    count = await db.fetchval("SELECT count(*) FROM webhook WHERE organization_id IS NOT DISTINCT FROM $1", owner)
    if count >= WEBHOOKS_MAX:
        raise Conflict(f"there are {WEBHOOKS_MAX} webhooks already, which is the most: delete one first")
    row = await db.fetchrow(
        """
        INSERT INTO webhook (organization_id, url, description, events) VALUES ($1, $2, $3, $4) RETURNING id
        """,
        owner,
        *checked,
        wanted,
    )
    assert row is not None, "RETURNING returns"
    source = new_source(peppers)
    await _add_secret(db, row["id"], source)
    return CreatedWebhook(await find_webhook(db, scope, str(row["id"])), _secret_of(source, peppers))


async def find_webhook(db: Database, scope: Scope, reference: str, *, lock: bool = False) -> Webhook:
    """Return the webhook with this id, on request locked until the transaction ends.

    Raises NotFound when it is not within the scope, Forbidden as creating does.
    """
    scope.require_organization("see webhooks")
    locked = "FOR UPDATE OF w" if lock else ""
    row = await db.fetchrow(f"{_SELECT} AND w.id = $2 {locked}", scope.organization_id, as_id(reference))
    if row is None:
        raise NotFound("no webhook with this id", param="webhook")
    return _webhook(dict(row))


async def list_webhooks(
    db: Database, scope: Scope, page: Page = FIRST_PAGE, *, organization: str | None = None
) -> list[Webhook]:
    """Return the webhooks within the scope, one page, by id; with an organization its own alone. Raises NotFound."""
    scope.require_organization("see webhooks")
    scope = await narrowed(db, scope, organization)
    rows = await db.fetch(
        f"{_SELECT} AND ($2::uuid IS NULL OR w.id > $2) ORDER BY w.id LIMIT $3",
        scope.organization_id,
        page.after,
        page.limit,
    )
    return [_webhook(dict(row)) for row in rows]


async def change_webhook(db: Database, scope: Scope, reference: str, change: WebhookChange) -> Webhook:
    """Change a webhook. Enabling it begins with a clean slate: what was given up meanwhile stays so.

    Raises InvalidRequest, NotFound, Forbidden.
    """
    webhook = await find_webhook(db, scope, reference)
    await db.execute(
        """
        UPDATE webhook SET url = coalesce($3, url), events = coalesce($4, events),
            description = coalesce($5, description),
            disabled_at = CASE WHEN $6 THEN NULL WHEN NOT $6 THEN coalesce(disabled_at, now()) ELSE disabled_at END,
            disabled_reason = CASE WHEN $6 THEN NULL WHEN NOT $6 THEN coalesce(disabled_reason, $7)
                ELSE disabled_reason END
        WHERE id = $2 AND ($1::uuid IS NULL OR organization_id = $1)
        """,
        scope.organization_id,
        webhook.id,
        None if change.url is None else checked_url(change.url),
        None if change.events is None else _checked_events(change.events),
        None if change.description is None else _checked_description(change.description),
        change.enabled,
        DISABLED_BY_HAND,
    )
    if change.enabled or change.url is not None:
        await db.execute("DELETE FROM webhook_health WHERE webhook_id = $1", webhook.id)
    if change.enabled is False:
        await db.execute(
            """
            UPDATE webhook_delivery SET next_attempt_at = NULL, given_up_at = now(), last_error = $2
            WHERE webhook_id = $1 AND next_attempt_at IS NOT NULL
            """,
            webhook.id,
            DISABLED_BY_HAND,
        )
    return await find_webhook(db, scope, reference)


async def rotate_webhook_secret(
    db: Database, scope: Scope, peppers: Peppers, reference: str, *, grace: dt.timedelta
) -> CreatedWebhook:
    """Exchange a webhook's secret. For `grace`, at most GRACE_MAX, what is sent is signed with both.

    Raises InvalidRequest, NotFound, Forbidden.
    """
    if not dt.timedelta(0) <= grace <= GRACE_MAX:
        raise InvalidRequest(f"grace must be 0s to {GRACE_MAX.days}d", param="grace")
    webhook = await find_webhook(db, scope, reference)
    await db.execute("DELETE FROM webhook_secret WHERE webhook_id = $1 AND expires_at IS NOT NULL", webhook.id)
    await db.execute(
        "UPDATE webhook_secret SET expires_at = now() + $2::interval WHERE webhook_id = $1", webhook.id, grace
    )
    source = new_source(peppers)
    await _add_secret(db, webhook.id, source)
    await db.execute(
        "UPDATE webhook SET secret_rotated_at = now() WHERE id = $2 AND ($1::uuid IS NULL OR organization_id = $1)",
        scope.organization_id,
        webhook.id,
    )
    return CreatedWebhook(await find_webhook(db, scope, reference), _secret_of(source, peppers))


async def delete_webhook(db: Database, scope: Scope, reference: str) -> Webhook:
    """Delete a webhook with all that waits for it, and return what it was. Raises NotFound, Forbidden."""
    webhook = await find_webhook(db, scope, reference)
    await db.execute(
        "DELETE FROM webhook WHERE id = $2 AND ($1::uuid IS NULL OR organization_id = $1)",
        scope.organization_id,
        webhook.id,
    )
    return webhook


async def _add_secret(db: Database, webhook_id: UUID, source: SecretSource) -> None:
    await db.execute(
        "INSERT INTO webhook_secret (webhook_id, secret_nonce, pepper_version) VALUES ($1, $2, $3)",
        webhook_id,
        source.nonce,
        source.pepper_version,
    )


def _secret_of(source: SecretSource, peppers: Peppers) -> str:
    secret = source.secret(peppers)
    assert secret is not None, "the newest pepper is configured"
    return shown(secret)


def _webhook(row: dict[str, object]) -> Webhook:
    events = row.pop("events")
    assert isinstance(events, list), "an array"
    return Webhook(**row, events=tuple(events))  # type: ignore[arg-type]  # the columns are its fields


def _checked_events(events: Sequence[str]) -> list[str]:
    if not events or set(events) - set(KINDS):
        raise InvalidRequest(f"events must be some of {', '.join(KINDS)}", param="events")
    return list(dict.fromkeys(events))


def _checked_description(description: str) -> str:
    if len(description) > DESCRIPTION_CHARS_MAX or not description.isprintable():
        message = f"description must be at most {DESCRIPTION_CHARS_MAX} characters that can be printed"
        raise InvalidRequest(message, param="description")
    return description


def document(made: CreatedWebhook) -> dict[str, object]:
    """Return a webhook with its secret, as it is answered this once."""
    return asdict(made.about) | {"secret": made.secret}
