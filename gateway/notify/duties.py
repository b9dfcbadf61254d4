"""The leader's duties for webhooks: noticing what budgets have come to, delivering, and removing what is old."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gateway.notify import delivery_store
from gateway.notify.budget_watch import LOOK_EVERY_S, LOOK_S_MAX, BudgetWatch
from gateway.notify.courier import DELIVER_EVERY_S, DELIVER_S_MAX, Courier
from gateway.notify.post import Post
from gateway.storage.leader import Duty
from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from gateway.authenticate.key import Peppers
    from gateway.domain.addresses import Network
    from gateway.observe.webhooks import WebhookMetrics
    from gateway.storage.leader import Term
    from gateway.storage.postgres import Pool

REMOVE_EVERY_S = 300.0


def webhook_duties(
    pool: Pool, peppers: Peppers, allowed: tuple[Network, ...], metrics: WebhookMetrics
) -> tuple[Duty, ...]:
    """Return the duties. `allowed` are networks that webhooks may lead to although they are not public.

    Whether there is anything to do is asked over the leader's own connection: those of the pool are for requests.
    """

    tls = ssl.create_default_context()

    async def deliver(term: Term) -> None:
        async with term.connection() as connection:
            if not await delivery_store.is_due(connection):
                return
        # A client for each run, so that nothing is open where nobody leads; a run lasts as long as there is work.
        async with Post(peppers, allowed, tls) as post:
            await Courier(pool, post.send, metrics).run()

    async def remove_old(term: Term) -> None:
        async with term.connection() as connection:
            if not await delivery_store.is_old(connection):
                return
        async with borrowed(pool, DELIVER_S_MAX) as connection:
            await delivery_store.remove_old(connection)

    return (
        Duty("budget_notices", LOOK_EVERY_S, LOOK_S_MAX, BudgetWatch(pool, metrics).run),
        Duty("webhooks", DELIVER_EVERY_S, DELIVER_S_MAX, deliver),
        Duty("webhook_retention", REMOVE_EVERY_S, DELIVER_S_MAX, remove_old),
    )
