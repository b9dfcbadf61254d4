"""Delivers events to webhooks, at least once each: a duty of the leader.

Webhooks are served beside each other, each one event after the other. What fails comes again after a time that grows
with each attempt, until a day is over; a webhook that fails is left alone for a while, so that it costs one attempt now
and then and not one for each event. One that fails for days is disabled.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from gateway.notify import delivery_store
from gateway.notify.post import GONE
from gateway.storage.postgres import borrowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from gateway.notify.delivery_store import Delivery
    from gateway.notify.post import Outcome
    from gateway.observe.webhooks import WebhookMetrics
    from gateway.storage.postgres import Pool

DELIVER_EVERY_S = 1.0
ROUND_S = 30.0
"""How long one run takes on new deliveries; then it waits for those under way."""
DELIVER_S_MAX = 120.0
STATEMENT_S_MAX = 10.0

WEBHOOKS_MAX = 16
"""Webhooks served at once."""
EACH_MAX = 8
"""Events that one webhook is sent before others have their turn."""

FIRST_WAIT_S = 5.0
WAIT_FACTOR = 3.0
WAIT_S_MAX = 4 * 3600.0
PAUSE_S_MAX = 600.0
"""For how long a webhook that fails is left alone at most, whatever waits for it, so that its recovery is noticed."""
_EXPONENT_MAX = 20

GIVEN_UP_AFTER = dt.timedelta(hours=24)
DISABLED_AFTER = dt.timedelta(days=3)
DISABLED_FAILURES_MIN = 20
"""Two failures with days between them are no reason."""

_log = structlog.get_logger("penstock.webhooks")


def wait_s(failures: int, chance: float, longest_s: float = WAIT_S_MAX) -> float:
    """Return how long to wait after so many failures in a row, at least 1, in seconds.

    Five seconds, three times as long each time, at most `longest_s`. `chance` in [0, 1) spreads it from 80 to 120 %.
    """
    exponent = min(failures - 1, _EXPONENT_MAX)
    return float(min(FIRST_WAIT_S * WAIT_FACTOR**exponent, longest_s) * (0.8 + 0.4 * chance))


class Courier:
    """The duty. `send` makes one attempt and returns its outcome, whatever that is."""

    def __init__(self, pool: Pool, send: Callable[[Delivery], Awaitable[Outcome]], metrics: WebhookMetrics) -> None:
        self._pool = pool
        self._send = send
        self._metrics = metrics

    async def run(self) -> None:
        """Deliver what is due until nothing is, or ROUND_S is over.

        Raises what asyncpg raises when Postgres is away; what was under way is delivered again.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + ROUND_S
        serving: dict[asyncio.Task[None], UUID] = {}
        try:
            while True:
                if loop.time() < until_s:
                    await self._begin(serving)
                if not serving:
                    break
                done, _ = await asyncio.wait(serving, timeout=DELIVER_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del serving[task]
                    task.result()
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            self._metrics.queue_age.set(0)

    async def _begin(self, serving: dict[asyncio.Task[None], UUID]) -> None:
        """Begin to serve webhooks that have something due, as many as there are places."""
        places = WEBHOOKS_MAX - len(serving)
        if places <= 0:
            return
        async with borrowed(self._pool, STATEMENT_S_MAX) as connection:
            self._metrics.queue_age.set(await delivery_store.overdue_s(connection))
            due = await delivery_store.due(connection, list(serving.values()), EACH_MAX, places * EACH_MAX)
        by_webhook = attrgetter("webhook_id")
        for webhook_id, deliveries in groupby(sorted(due, key=by_webhook), by_webhook):
            if len(serving) == WEBHOOKS_MAX:
                break
            serving[asyncio.ensure_future(self._serve(list(deliveries)))] = webhook_id

    async def _serve(self, deliveries: list[Delivery]) -> None:
        """Send events to one webhook, one after the other, until one fails or ROUND_S is over."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + ROUND_S
        for delivery in deliveries:
            if loop.time() > until_s:
                return
            outcome = await self._send(delivery)
            if not outcome.delivered:
                await self._failed(delivery, outcome)
                return
            async with borrowed(self._pool, STATEMENT_S_MAX) as connection:
                await delivery_store.delivered(connection, delivery, outcome.status)
            self._metrics.attempted("delivered")

    async def _failed(self, delivery: Delivery, outcome: Outcome) -> None:
        chance = random.random()  # noqa: S311 - spreads load, no secret
        again_s: float | None = max(wait_s(delivery.attempts + 1, chance), outcome.retry_after_s)
        resume_s = max(wait_s(delivery.failures + 1, chance, PAUSE_S_MAX), outcome.retry_after_s)
        now = dt.datetime.now(dt.UTC)
        if now - delivery.queued_at > GIVEN_UP_AFTER:
            again_s = None
        disabled = _reason_to_disable(delivery, outcome, now)
        async with borrowed(self._pool, STATEMENT_S_MAX) as connection, connection.transaction():
            await delivery_store.failed(
                connection,
                delivery,
                status=outcome.status,
                error=outcome.error,
                again_in_s=again_s,
                resume_in_s=resume_s,
            )
            if disabled:
                await delivery_store.disable(connection, delivery.webhook_id, disabled)
        self._metrics.attempted("failed" if again_s is not None and not disabled else "given_up")
        if disabled:
            _log.warning("webhook_disabled", **_about(delivery), reason=disabled, last_error=outcome.error)
        elif delivery.failures == 0:
            _log.warning("webhook_fails", **_about(delivery), reason=outcome.error)


def _reason_to_disable(delivery: Delivery, outcome: Outcome, now: dt.datetime) -> str:
    if outcome.status == GONE:
        return "it answered 410: it is gone"
    since = delivery.failing_since
    if since is not None and now - since > DISABLED_AFTER and delivery.failures >= DISABLED_FAILURES_MIN:
        return f"it has failed since {since.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC, {delivery.failures + 1} times"
    return ""


def _about(delivery: Delivery) -> dict[str, str | None]:
    """Return what the log says of a webhook: not its whole address, which may hold a token."""
    return {
        "webhook": str(delivery.webhook_id),
        "organization": None if delivery.organization_id is None else str(delivery.organization_id),
        "host": _host(delivery.url),
    }


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
