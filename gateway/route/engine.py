"""One engine of a pool as this replica sees it: what runs on it, and whether it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.domain.attempt import AttemptOutcome
from gateway.providers.connect import connect
from gateway.providers.dialect import request_headers

if TYPE_CHECKING:
    from gateway.domain.config import PoolConfig
    from gateway.observe.metrics import Metrics

FAILURES_TO_EJECT = 5
EJECTION_S = 30.0
EJECTION_S_MAX = 300.0


class Engine:
    """Load and health of one endpoint. Ejection is passive, by what requests see; `up` is what probes see."""

    def __init__(self, pool: PoolConfig, endpoint: str, metrics: Metrics) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.headers = request_headers(pool)
        self.connection = connect(pool, endpoint)
        self.in_flight = 0
        self.up = True
        self._failures = 0
        self._ejections = 0
        self._ejected_until_s = 0.0
        self._busy_until_s = 0.0
        labels = (pool.name, endpoint)
        self._up_gauge = metrics.engine_up.labels(*labels)
        metrics.engine_in_flight.labels(*labels).set_function(lambda: self.in_flight)
        self._attempts = {outcome: metrics.engine_attempts.labels(*labels, outcome.value) for outcome in AttemptOutcome}
        self._up_gauge.set(1)

    @property
    def ejected(self) -> bool:
        """Whether its recent failures keep it out."""
        return time.monotonic() < self._ejected_until_s

    @property
    def busy(self) -> bool:
        """Whether it said 429 and asked for a pause that is not over."""
        return time.monotonic() < self._busy_until_s

    @property
    def full(self) -> bool:
        """Whether as much runs on it as its pool allows."""
        return self.pool.concurrency is not None and self.in_flight >= self.pool.concurrency

    def begin(self) -> None:
        """Count one more request on it."""
        self.in_flight += 1

    def end(self, outcome: AttemptOutcome, *, may_eject: bool, retry_after_s: float | None) -> None:
        """Count one request less and learn from how it went; ejects only while the pool can spare the engine."""
        self.in_flight -= 1
        self._attempts[outcome].inc()
        if outcome in (AttemptOutcome.OK, AttemptOutcome.REFUSED):
            self._failures = self._ejections = 0
        elif outcome is AttemptOutcome.BUSY:
            self._busy_until_s = time.monotonic() + (1.0 if retry_after_s is None else retry_after_s)
        elif outcome is AttemptOutcome.FAILED:
            self._failures += 1
            if self._failures >= FAILURES_TO_EJECT and may_eject and not self.ejected:
                self._ejections += 1
                self._failures = 0
                self._ejected_until_s = time.monotonic() + min(EJECTION_S * self._ejections, EJECTION_S_MAX)

    def probed(self, *, healthy: bool) -> None:
        """Take in what an active probe saw."""
        self.up = healthy
        self._up_gauge.set(1 if healthy else 0)

    def __repr__(self) -> str:
        return f"Engine({self.endpoint}, in_flight={self.in_flight}, up={self.up}, ejected={self.ejected})"
