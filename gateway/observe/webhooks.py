"""Series of webhooks: what became of attempts, what could not be queued, and how far deliveries are behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class WebhookMetrics:
    """The series, under the prefix `penstock_webhook_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "penstock_webhook_attempts",
            "Attempts to deliver an event, by result: delivered, failed (tried again), given_up.",
            ("result",),
            registry=registry,
        )
        self._events = Counter("penstock_webhook_events", "Events that somebody is told of.", registry=registry)
        self._dropped = Counter(
            "penstock_webhook_dropped",
            "What nobody is told of: queue_full and postgres_away on the replica that noticed it, too_many_waiting for "
            "one webhook.",
            ("reason",),
            registry=registry,
        )
        self.queue_age = Gauge(
            "penstock_webhook_queue_age_seconds",
            "On the leader: for how long the delivery that is due longest has been due.",
            registry=registry,
        )

    def attempted(self, result: str) -> None:
        """Count an attempt."""
        self._attempts.labels(result).inc()

    def told(self, events: int, dropped: int) -> None:
        """Count new events, and deliveries that were not queued since too many wait."""
        self._events.inc(events)
        if dropped:
            self._dropped.labels("too_many_waiting").inc(dropped)

    def lost(self, reason: str, events: int) -> None:
        """Count what was noticed and could not be written down."""
        self._dropped.labels(reason).inc(events)
