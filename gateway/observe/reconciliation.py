"""Series of the reconciliation, exported by the replica that leads: what the last comparison found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry


class ReconciliationMetrics:
    """The series, under the prefix `penstock_ledger_`; there is none before the first comparison."""

    def __init__(self, registry: CollectorRegistry) -> None:
        kind = ("kind",)
        self._tokens = Gauge(
            "penstock_ledger_drift_tokens",
            "Tokens by which the ledger differs from itself (rollups), replicas and engines, beyond what is allowed.",
            kind,
            registry=registry,
        )
        self._accounts = Gauge(
            "penstock_ledger_drift_accounts",
            "Accounts that differ from the ledger by more than is allowed; requests and money, too.",
            kind,
            registry=registry,
        )
        self._not_compared = Gauge(
            "penstock_ledger_not_compared", "Accounts that could not be compared.", kind, registry=registry
        )
        self._compared_at = Gauge(
            "penstock_ledger_compared_timestamp_seconds", "When all was last compared, in Unix time.", registry=registry
        )

    def compared(
        self, tokens: Mapping[str, int], accounts: Mapping[str, int], not_compared: Mapping[str, int], *, at_s: float
    ) -> None:
        """Export what a comparison found, by kind of account; `at_s` is Unix time."""
        for gauge, values in ((self._tokens, tokens), (self._accounts, accounts), (self._not_compared, not_compared)):
            for kind, value in values.items():
                gauge.labels(kind).set(value)
        self._compared_at.set(at_s)
