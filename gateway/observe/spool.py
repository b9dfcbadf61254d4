"""The series of the ledger's spool, and of what stands between a request and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class SpoolMetrics:
    """Gauges of this process's own spool, counters of all that it has written, drained and adopted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes = Gauge("penstock_spool_bytes", "Bytes of this replica's spool on the disk.", registry=registry)
        self.records = Gauge(
            "penstock_spool_records", "Records in this replica's spool that are not in Postgres yet.", registry=registry
        )
        self.oldest = Gauge(
            "penstock_spool_oldest_seconds", "Age of the oldest record in this replica's spool.", registry=registry
        )
        self.available = Gauge(
            "penstock_spool_available",
            "1 while the spool takes records, 0 when full or failing.",
            registry=registry,
        )
        self.left_folders = Gauge(
            "penstock_spool_left_folders",
            "Folders of processes that have ended, seen in the spool directory and not drained yet.",
            registry=registry,
        )
        self.failures = Counter(
            "penstock_spool_failures", "Groups of records that the spool did not take.", registry=registry
        )
        self.written = Counter("penstock_spool_written_records", "Records written to the spool.", registry=registry)
        self.drained = Counter(
            "penstock_spool_drained_records", "Records moved from a spool to Postgres.", registry=registry
        )
        self.adopted = Counter(
            "penstock_spool_adopted_folders", "Folders of ended processes that were drained here.", registry=registry
        )
        self.corrupt = Counter(
            "penstock_spool_corrupt_files", "Spool files that were damaged and are kept aside.", registry=registry
        )
        self.ledger_available = Gauge(
            "penstock_ledger_available",
            "1 while the ledger can be written, 0 when neither Postgres nor the spool takes records: requests get 503.",
            registry=registry,
        )
        self.ledger_spooling = Gauge(
            "penstock_ledger_spooling", "1 while records go to the spool instead of to Postgres.", registry=registry
        )
