"""The series that one replica exports. Tenant labels stand on counters only; histograms are by model.

Label values come from the tenants' table and from penstock.yaml, never from what a client sends, so the number of
series is bounded. Everything lives in one registry that is passed around; there is none of the library's own.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

from gateway.observe.estimates import EstimateErrors
from gateway.observe.spool import SpoolMetrics
from gateway.observe.webhooks import WebhookMetrics
from gateway.units import PICO_USD_PER_USD, PicoUsd

if TYPE_CHECKING:
    from gateway.domain.principal import Principal
    from gateway.domain.usage import Status, TokenUsage

_SECONDS_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SECONDS_TTFT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
_SECONDS_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_SECONDS_REQUEST = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

TENANT_SERIES_MAX = 20_000
"""Sets of tenant series kept at hand; above it the table is emptied and filled again (the series stay)."""


@dataclass(frozen=True, slots=True)
class _TenantSeries:
    """Children of the tenant counters, looked up once for an organization, team and model."""

    prompt: Counter
    cached: Counter
    completion: Counter
    reasoning: Counter
    cost: Counter


class Metrics:
    """All series of this process under the prefix `penstock_`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no types here; the series are never read
        registry = self.registry = CollectorRegistry()
        self._requests(registry)
        self.in_flight = Gauge("penstock_requests_in_flight", "Admitted requests being served.", registry=registry)
        self._limiter_and_keys(registry)
        self._ledger(registry)
        self.spool = SpoolMetrics(registry)
        self.estimates = EstimateErrors(registry)
        self.webhooks = WebhookMetrics(registry)
        self._engines(registry)
        self.replicas_live = Gauge(
            "penstock_replicas_live",
            "Replicas that live as far as this one knows: without Redis, limits are shared by so many.",
            registry=registry,
        )
        self.event_loop_lag = Histogram(
            "penstock_event_loop_lag_seconds",
            "How late a timer of the event loop fires.",
            buckets=_SECONDS_SHORT,
            registry=registry,
        )
        self.event_loop_tasks = Gauge("penstock_event_loop_tasks", "Tasks of the event loop.", registry=registry)
        self.config_generation = Gauge(
            "penstock_config_generation", "How often penstock.yaml was read in since the start.", registry=registry
        )
        self.config_valid = Gauge(
            "penstock_config_valid",
            "1 when penstock.yaml as it stands is in use, 0 when it is invalid.",
            registry=registry,
        )
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._tenants: dict[tuple[str, str, str], _TenantSeries] = {}
        self._ends: dict[tuple[str, str, str, str, Status], tuple[Counter, Histogram]] = {}

    def _requests(self, registry: CollectorRegistry) -> None:
        tenant = ("organization", "team", "model")
        self.requests = Counter(
            "penstock_requests",
            "Admitted requests that have ended.",
            (*tenant, "endpoint", "status"),
            registry=registry,
        )
        self.refusals = Counter(
            "penstock_refused_requests",
            "Requests refused or failed before admission, by error code.",
            ("code",),
            registry=registry,
        )
        self.tokens = Counter(
            "penstock_tokens",
            "Tokens used; cached is part of prompt, reasoning part of completion.",
            (*tenant, "kind"),
            registry=registry,
        )
        self.cost = Counter("penstock_cost_usd", "Cost of the tokens used, in US dollars.", tenant, registry=registry)
        self.ttft = Histogram(
            "penstock_time_to_first_token_seconds",
            "From the request's first byte read to the first content sent, streams only.",
            ("model",),
            buckets=_SECONDS_TTFT,
            registry=registry,
        )
        self.token_time = Histogram(
            "penstock_time_per_output_token_seconds",
            "Mean time between a stream's tokens after the first.",
            ("model",),
            buckets=_SECONDS_TOKEN,
            registry=registry,
        )
        self.duration = Histogram(
            "penstock_request_duration_seconds",
            "From the request's first byte read to its end.",
            ("model", "endpoint"),
            buckets=_SECONDS_REQUEST,
            registry=registry,
        )

    def _limiter_and_keys(self, registry: CollectorRegistry) -> None:
        self._decision_children: dict[str, Counter] = {}
        self._decisions = Counter(
            "penstock_limiter_decisions",
            "Admission decisions: granted, refused, refused_budget, refused_concurrency, too_large and so on.",
            ("decision",),
            registry=registry,
        )
        self.limiter_fallback = Gauge(
            "penstock_limiter_fallback", "1 while limits are enforced without Redis.", registry=registry
        )
        self.leases_held = Gauge(
            "penstock_limiter_leases_held", "Requests of this replica that hold a concurrency lease.", registry=registry
        )
        self.settles_dropped = Counter(
            "penstock_limiter_settles_dropped",
            "Settles given up: too many waited for Redis, or it found broken keys.",
            registry=registry,
        )
        self.redis_noeviction = Gauge(
            "penstock_redis_noeviction", "1 when Redis runs with maxmemory-policy noeviction.", registry=registry
        )
        self.key_lookups = Counter(
            "penstock_key_lookups",
            "Keys looked up: hit, miss, unknown, revoked, expired, replaced, orphaned, stale (served while Postgres is"
            " away), unavailable.",
            ("result",),
            registry=registry,
        )

    def _ledger(self, registry: CollectorRegistry) -> None:
        self.ledger_pending = Gauge(
            "penstock_ledger_pending_events", "Events with a record not yet in Postgres.", registry=registry
        )
        self.ledger_lag = Gauge(
            "penstock_ledger_lag_seconds", "Age of the oldest record not yet in Postgres.", registry=registry
        )
        self.ledger_commit = Histogram(
            "penstock_ledger_commit_seconds", "Time of one group commit.", buckets=_SECONDS_SHORT, registry=registry
        )
        self.ledger_records = Counter(
            "penstock_ledger_records", "Records written to Postgres.", ("record",), registry=registry
        )
        self.ledger_failures = Counter("penstock_ledger_commit_failures", "Commits that failed.", registry=registry)
        self.ledger_rejected = Counter(
            "penstock_ledger_rejected_records",
            "Records that Postgres refuses for their content; they are in the log in full.",
            registry=registry,
        )

    def _engines(self, registry: CollectorRegistry) -> None:
        labels = ("pool", "engine")
        self.engine_up = Gauge("penstock_engine_up", "1 when the engine is healthy.", labels, registry=registry)
        self.engine_in_flight = Gauge(
            "penstock_engine_requests_in_flight", "Requests of this replica on the engine.", labels, registry=registry
        )
        self.engine_attempts = Counter(
            "penstock_engine_attempts", "Attempts on the engine by outcome.", (*labels, "outcome"), registry=registry
        )

    def decided(self, decision: str) -> None:
        """Count one admission decision."""
        child = self._decision_children.get(decision)
        if child is None:
            child = self._decision_children[decision] = self._decisions.labels(decision)
        child.inc()

    def used(self, principal: Principal, model: str, usage: TokenUsage, cost: PicoUsd) -> None:
        """Count the tokens and the cost of one ended request."""
        series = self._tenant_series(principal.organization, principal.team, model)
        series.prompt.inc(usage.prompt)
        series.completion.inc(usage.completion)
        if usage.cached:
            series.cached.inc(usage.cached)
        if usage.reasoning:
            series.reasoning.inc(usage.reasoning)
        if cost:
            series.cost.inc(cost / PICO_USD_PER_USD)

    def ended(self, principal: Principal, model: str, endpoint: str, status: Status, duration_s: float) -> None:
        """Count one ended request."""
        key = (principal.organization, principal.team, model, endpoint, status)
        ends = self._ends.get(key)
        if ends is None:
            if len(self._ends) >= TENANT_SERIES_MAX:
                self._ends.clear()
            ends = self._ends[key] = (
                self.requests.labels(*key[:4], status.value),
                self.duration.labels(model, endpoint),
            )
        ends[0].inc()
        ends[1].observe(duration_s)

    def forget_engine(self, pool: str, engine: str) -> None:
        """Drop the gauges of an engine that is no longer configured; its counters stay what they were."""
        for gauge in (self.engine_up, self.engine_in_flight):
            with contextlib.suppress(KeyError):
                gauge.remove(pool, engine)

    def first_token(self, model: str, seconds: float) -> None:
        """Observe a stream's time to first token."""
        self.ttft.labels(model).observe(seconds)

    def per_token(self, model: str, seconds: float) -> None:
        """Observe a stream's mean time between tokens."""
        self.token_time.labels(model).observe(seconds)

    def _tenant_series(self, organization: str, team: str, model: str) -> _TenantSeries:
        key = (organization, team, model)
        series = self._tenants.get(key)
        if series is None:
            if len(self._tenants) >= TENANT_SERIES_MAX:
                self._tenants.clear()
            series = self._tenants[key] = _TenantSeries(
                prompt=self.tokens.labels(*key, "prompt"),
                cached=self.tokens.labels(*key, "cached"),
                completion=self.tokens.labels(*key, "completion"),
                reasoning=self.tokens.labels(*key, "reasoning"),
                cost=self.cost.labels(*key),
            )
        return series
