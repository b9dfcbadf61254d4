"""The duty that holds the ledger against all other accounts, and says in log and metrics what differs."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections import Counter
from typing import TYPE_CHECKING

import asyncpg
import structlog

from gateway.settle.drift import Check, Findings
from gateway.settle.reconcile import REST_S_MAX, reconcile
from gateway.storage.dsn import asyncpg_dsn

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.config import GatewayConfig
    from gateway.observe.reconciliation import ReconciliationMetrics
    from gateway.storage.leader import Term

RECONCILE_S_MAX = 1800.0
SINCE = dt.timedelta(hours=25)
"""How far back openings, ends and rollups are looked at: every request as long as it may take, and an interval."""

CONNECT_S_MAX = 5.0
CLOSE_S_MAX = 2.0
LOGGED_MAX = 20
"""Drifts that one run tells of in the log; the gauges have all of them."""

_log = structlog.get_logger("penstock.reconciliation")


class Reconciler:
    """Compares everything once in each interval of a term, over a connection of its own: some statements take long."""

    def __init__(
        self, direct_dsn: str, config: Callable[[], GatewayConfig], metrics: ReconciliationMetrics, *, every_s: float
    ) -> None:
        """Prepare.

        Args:
            direct_dsn: Postgres past any pooler.
            config: returns the penstock.yaml whose engines are read.
            metrics: are told what was found.
            every_s: how often, in seconds; replicas come and go together, so a term's first interval passes before.
        """
        self._dsn = asyncpg_dsn(direct_dsn)
        self._config = config
        self._metrics = metrics
        self._every_s = every_s

    async def run(self, term: Term) -> None:
        """Compare, unless the term has just begun. Raises what asyncpg raises when Postgres is away."""
        if time.monotonic() - term.began_s < self._every_s / 2:
            return
        connection = await asyncpg.connect(
            self._dsn, timeout=CONNECT_S_MAX, server_settings={"application_name": "penstock reconciliation"}
        )
        try:
            now = dt.datetime.now(dt.UTC)
            rest_s = min(REST_S_MAX, self._every_s)
            found = await reconcile(connection, now - SINCE, now, self._config(), rest_s_max=rest_s)
        finally:
            with contextlib.suppress(Exception):  # the connection may be in any state; nothing depends on a clean end
                await connection.close(timeout=CLOSE_S_MAX)
        self._tell(found)

    def _tell(self, found: Findings) -> None:
        for drift in found.drifts[:LOGGED_MAX]:
            _log.warning(
                "ledger_drift",
                kind=drift.check.value,
                subject=drift.subject,
                what=drift.what,
                ledger=drift.ledger,
                other=drift.other,
                allowed=drift.allowed,
            )
        for one in found.not_compared[:LOGGED_MAX]:
            _log.info("ledger_not_compared", kind=one.check.value, subject=one.subject, reason=one.reason)
        accounts = Counter(drift.check for drift in found.drifts)
        unknown = Counter(one.check for one in found.not_compared)
        self._metrics.compared(
            {check.value: found.drift_tokens(check) for check in Check},
            {check.value: accounts[check] for check in Check},
            {check.value: unknown[check] for check in Check},
            at_s=time.time(),
        )
