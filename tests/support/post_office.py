"""A courier that delivers webhooks when a test says so, on a database whose time a test lets pass."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admin.webhook_deliveries import WebhookDelivery, list_deliveries, ping_webhook
from gateway.admin.webhooks import find_webhook
from gateway.notify.courier import Courier
from gateway.notify.post import Post
from gateway.observe.webhooks import WebhookMetrics
from tests.support.postgres import ask
from tests.support.webhooks import LOOPBACK, PEPPERS

if TYPE_CHECKING:
    import asyncpg

    from gateway.admin.webhooks import CreatedWebhook
    from gateway.domain.addresses import Network

AGEING = {
    "webhook_delivery": ("next_attempt_at", "created_at", "delivered_at"),
    "webhook_event": ("created_at",),
    "webhook_health": ("resume_at", "failing_since"),
    "webhook_secret": ("created_at", "expires_at"),
}


class PostOffice:
    """A courier on a fresh database."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.dsn = dsn
        self.pool = pool
        self.registry = CollectorRegistry()
        self.metrics = WebhookMetrics(self.registry)
        self._tls = ssl.create_default_context()

    async def deliver(self, allowed: tuple[Network, ...] = LOOPBACK, tls: ssl.SSLContext | None = None) -> None:
        """Deliver what is due."""
        async with Post(PEPPERS, allowed, tls or self._tls) as post:
            await Courier(self.pool, post.send, self.metrics).run()

    async def ping(self, webhook: CreatedWebhook) -> WebhookDelivery:
        """Queue a ping."""
        async with transaction_on(self.dsn) as db:
            return await ping_webhook(db, PLATFORM, str(webhook.about.id))

    async def shown(self, webhook: CreatedWebhook) -> list[WebhookDelivery]:
        """Return the webhook's deliveries."""
        async with transaction_on(self.dsn) as db:
            return await list_deliveries(db, PLATFORM, str(webhook.about.id))

    async def status(self, webhook: CreatedWebhook) -> tuple[str, str | None]:
        """Return the webhook's status, and why it is disabled."""
        async with transaction_on(self.dsn) as db:
            found = await find_webhook(db, PLATFORM, str(webhook.about.id))
        return found.status, found.disabled_reason

    async def let_pass(self, interval: str) -> None:
        """Let time pass: what was written down is so much older."""
        for table, columns in AGEING.items():
            older = ", ".join(f"{column} = {column} - $1::text::interval" for column in columns)
            await ask(self.dsn, f"UPDATE {table} SET {older}", interval)  # noqa: S608 - names of this module

    def count(self, result: str) -> float:
        """Return how many attempts had a result."""
        return self.registry.get_sample_value("penstock_webhook_attempts_total", {"result": result}) or 0.0
