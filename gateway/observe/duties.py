"""Series of the leader: which replica it is, how long its duties take and how often they fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class DutyMetrics:
    """The series, under the prefix `penstock_`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._leader = Gauge(
            "penstock_leader", "1 on the replica that has the duties of one replica alone.", registry=registry
        )
        self._seconds = Histogram(
            "penstock_duty_seconds", "Time of one run of a duty.", ("duty",), buckets=_SECONDS, registry=registry
        )
        self._failures = Counter(
            "penstock_duty_failures", "Runs of a duty that failed; the log says why.", ("duty",), registry=registry
        )
        self._reaped = Counter(
            "penstock_reaped_events",
            "Events closed in their replica's place: it is gone, or the deadline is long over.",
            ("reason",),
            registry=registry,
        )

    def reaped(self, reason: str, events: int) -> None:
        """Count events that were closed in their replica's place."""
        self._reaped.labels(reason).inc(events)

    def led(self, *, leads: bool) -> None:
        """Say whether this replica leads."""
        self._leader.set(1 if leads else 0)

    def duty_ran(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count one run of a duty."""
        self._seconds.labels(name).observe(seconds)
        failures = self._failures.labels(name)
        if failed:
            failures.inc()
