"""The series of a replica: bounded in number, exact where they count, and gone with the engine they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from prometheus_client import generate_latest

from gateway.domain.principal import Principal
from gateway.domain.usage import Status, TokenUsage
from gateway.observe import metrics as metrics_module
from gateway.observe.metrics import Metrics
from gateway.units import PICO_USD_PER_USD, PicoUsd

if TYPE_CHECKING:
    import pytest


def caller(organization: str = "org", team: str = "team") -> Principal:
    """Return a caller by the names that series are labelled with."""
    return Principal(uuid4(), organization, uuid4(), team, None, None, uuid4(), "publicid")


def test_usage_and_cost_are_counted_by_tenant_and_model() -> None:
    metrics, tenant = Metrics(), {"organization": "org", "team": "team", "model": "m"}
    usage = TokenUsage(prompt=10, cached=4, completion=3, reasoning=1)
    for _ in range(2):
        metrics.used(caller(), "m", usage, PicoUsd(PICO_USD_PER_USD))
    metrics.used(caller(), "m", TokenUsage(), PicoUsd(0))
    kinds = ("prompt", "cached", "completion", "reasoning")
    sample = metrics.registry.get_sample_value
    assert [sample("penstock_tokens_total", tenant | {"kind": kind}) for kind in kinds] == [20, 8, 6, 2]
    assert sample("penstock_cost_usd_total", tenant) == 2.0


def test_what_is_kept_at_hand_is_bounded_and_no_count_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "TENANT_SERIES_MAX", 3)
    metrics = Metrics()
    for _ in range(2):
        for number in range(10):
            tenant = caller(f"org-{number}")
            metrics.used(tenant, "m", TokenUsage(prompt=1), PicoUsd(0))
            metrics.ended(tenant, "m", "chat.completions", Status.OK, 0.1)
            assert len(metrics._tenants) <= 3
            assert len(metrics._ends) <= 3
    labels = {"organization": "org-0", "team": "team", "model": "m"}
    assert metrics.registry.get_sample_value("penstock_tokens_total", labels | {"kind": "prompt"}) == 2
    ended = labels | {"endpoint": "chat.completions", "status": "ok"}
    assert metrics.registry.get_sample_value("penstock_requests_total", ended) == 2


def test_decisions_are_counted_by_their_name() -> None:
    metrics = Metrics()
    for decision in ("granted", "refused", "granted"):
        metrics.decided(decision)
    assert metrics.registry.get_sample_value("penstock_limiter_decisions_total", {"decision": "granted"}) == 2


def test_an_engine_that_is_gone_is_no_longer_told_of() -> None:
    metrics = Metrics()
    metrics.engine_up.labels("p", "e").set(1)
    metrics.forget_engine("p", "e")
    metrics.forget_engine("p", "e")
    assert metrics.registry.get_sample_value("penstock_engine_up", {"pool": "p", "engine": "e"}) is None


def test_registries_are_separate_and_every_series_has_the_prefix() -> None:
    first, second = Metrics(), Metrics()
    first.in_flight.set(1)
    assert second.registry.get_sample_value("penstock_requests_in_flight") == 0
    names = {
        line.split()[2] for line in generate_latest(first.registry).decode().splitlines() if line.startswith("# TYPE")
    }
    assert {name for name in names if not name.startswith(("penstock_", "process_", "python_"))} == set()
    assert not any(name.endswith("_created") for name in names)
