"""Webhooks over HTTP: make and change them, exchange their secrets, see what became of deliveries, and repeat one."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path
from pydantic import Field

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.times import parse_duration
from gateway.admin.webhook_deliveries import WebhookDelivery, list_deliveries, ping_webhook, redeliver
from gateway.admin.webhooks import (
    CreatedWebhook,
    Webhook,
    WebhookChange,
    change_webhook,
    create_webhook,
    delete_webhook,
    find_webhook,
    list_webhooks,
    rotate_webhook_secret,
)
from gateway.notify.destination import URL_CHARS_MAX

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=AdminRoute)

EVENTS_MAX = 20
GRACE_DEFAULT = "24h"

_Url: TypeAlias = Annotated[str, Field(max_length=URL_CHARS_MAX, description="Where to POST events to.")]
_Events: TypeAlias = Annotated[list[str], Field(max_length=EVENTS_MAX)]
_Id: TypeAlias = Annotated[str, Path(max_length=200)]


class NewWebhook(Wanted):
    """A webhook of an organization; without one, of the caller's own, or for the platform of every one.

    `events` null: all kinds that there are.
    """

    url: _Url
    organization: Reference | None = None
    events: _Events | None = None
    description: str = ""


class ChangedWebhook(Wanted):
    """What is left out, or null, stays as it is."""

    url: _Url | None = None
    events: _Events | None = None
    description: str | None = None
    enabled: bool | None = None


class Rotation(Wanted):
    """For how long (`24h`, `0s`) what is sent is signed with the secret before, too."""

    grace: Annotated[str, Field(max_length=20)] = GRACE_DEFAULT


@dataclass(frozen=True, slots=True)
class WebhookWithSecret(Webhook):
    """A webhook with its secret, which is shown only now."""

    secret: str = field(repr=False)

    @classmethod
    def of(cls, made: CreatedWebhook) -> "WebhookWithSecret":
        """Return what is answered."""
        return cls(**asdict(made.about), secret=made.secret)


@dataclass(frozen=True, slots=True)
class WebhookWithDeliveries(Webhook):
    """A webhook with its last deliveries, the last first."""

    deliveries: list[WebhookDelivery]


@router.get("", operation_id="list_webhooks")
async def index(admin: AdminDep, page: PageDep, organization: OrganizationQuery = None) -> Listing[Webhook]:
    """List webhooks."""
    found = await list_webhooks(admin.db, admin.scope, page, organization=organization)
    return Listing[Webhook].of(found, page)


@router.post("", status_code=201, operation_id="create_webhook")
async def create(admin: AdminDep, wanted: NewWebhook) -> WebhookWithSecret:
    """Make a webhook, and show its secret this once."""
    made = await create_webhook(
        admin.db,
        admin.scope,
        admin.control.peppers,
        url=wanted.url,
        events=wanted.events,
        description=wanted.description,
        organization=wanted.organization,
    )
    return WebhookWithSecret.of(made)


@router.get("/{webhook}", operation_id="show_webhook")
async def show(admin: AdminDep, webhook: _Id) -> WebhookWithDeliveries:
    """Show a webhook and what became of its last deliveries."""
    found = admin.tagged(await find_webhook(admin.db, admin.scope, webhook))
    deliveries = await list_deliveries(admin.db, admin.scope, webhook)
    return WebhookWithDeliveries(**asdict(found), deliveries=deliveries)


@router.patch("/{webhook}", operation_id="change_webhook")
async def change(admin: AdminDep, webhook: _Id, wanted: ChangedWebhook) -> Webhook:
    """Change a webhook, disable it, or enable it again."""
    admin.check_match(await find_webhook(admin.db, admin.scope, webhook, lock=True))
    events = None if wanted.events is None else tuple(wanted.events)
    changed = WebhookChange(wanted.url, events, wanted.description, wanted.enabled)
    return admin.tagged(await change_webhook(admin.db, admin.scope, webhook, changed))


@router.delete("/{webhook}", operation_id="delete_webhook")
async def delete(admin: AdminDep, webhook: _Id) -> Webhook:
    """Delete a webhook, with all that waits for it."""
    admin.check_match(await find_webhook(admin.db, admin.scope, webhook, lock=True))
    return await delete_webhook(admin.db, admin.scope, webhook)


@router.post("/{webhook}/rotate", operation_id="rotate_webhook_secret")
async def rotate(admin: AdminDep, webhook: _Id, wanted: Rotation | None = None) -> WebhookWithSecret:
    """Exchange the secret, and show the new one this once; for a while both sign."""
    grace = parse_duration((wanted or Rotation()).grace, "grace")
    made = await rotate_webhook_secret(admin.db, admin.scope, admin.control.peppers, webhook, grace=grace)
    return WebhookWithSecret.of(made)


@router.post("/{webhook}/test", status_code=202, operation_id="test_webhook")
async def ping(admin: AdminDep, webhook: _Id) -> WebhookDelivery:
    """Send an event `webhook.test`; the webhook's deliveries tell what became of it."""
    return await ping_webhook(admin.db, admin.scope, webhook)


@router.post("/{webhook}/deliveries/{delivery}/redeliver", status_code=202, operation_id="redeliver_webhook")
async def again(admin: AdminDep, webhook: _Id, delivery: _Id) -> WebhookDelivery:
    """Send an event once more, under the same id."""
    return await redeliver(admin.db, admin.scope, webhook, delivery)
