"""What one replica does for all of them: the duties of the leader, put together."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from gateway.admin import statement_sums
from gateway.authenticate.key import Peppers
from gateway.notify.duties import webhook_duties
from gateway.observe.duties import DutyMetrics
from gateway.observe.reconciliation import ReconciliationMetrics
from gateway.settle import retention, rollup
from gateway.settle.reaper import Reaper
from gateway.settle.reconciler import RECONCILE_S_MAX, Reconciler
from gateway.storage.leader import Duty, Leadership, Term
from gateway.storage.partitions import make_partitions_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.config import GatewayConfig
    from gateway.resources import Resources
    from gateway.settings import Settings
    from gateway.settle.price import PriceTable
    from gateway.storage.postgres import Pool

PARTITIONS_EVERY_S = 3600.0
PARTITIONS_S_MAX = 60.0


REAPER_S_MAX = 120.0
REAPER_EVERY_S_MAX = 5.0
_REAPER_LOOKS = 12
"""How often the reaper looks within its patience."""


def leadership(
    settings: Settings, resources: Resources, prices: PriceTable, config: Callable[[], GatewayConfig]
) -> Leadership:
    """Return this replica's candidacy with all duties; to be called once, `run` does the rest."""
    metrics = DutyMetrics(resources.metrics.registry)
    patience_s = settings.reaper_patience_s
    reaper = Reaper(prices, metrics, patience_s=patience_s)
    duties = (
        Duty("partitions", PARTITIONS_EVERY_S, PARTITIONS_S_MAX, _make_partitions),
        *_rollups_and_retention(settings, resources.pool),
        _reconciliation(settings, resources, config),
        _statements(settings, resources.pool),
        Duty("reaper", min(patience_s / _REAPER_LOOKS, REAPER_EVERY_S_MAX), REAPER_S_MAX, reaper.run),
        *webhook_duties(
            resources.pool,
            Peppers.parse(settings.key_peppers.get_secret_value()),
            settings.webhook_private_addresses,
            resources.metrics.webhooks,
        ),
    )
    return Leadership(
        settings.require_postgres_direct_dsn(), duties, metrics, silence_s_max=settings.leader_silence_max_s
    )


def _rollups_and_retention(settings: Settings, pool: Pool) -> tuple[Duty, ...]:
    """Return the duties that may take longer than statements on the leader's own connection: two at once do no harm."""
    keep = retention.Retention(
        opens_days=settings.open_retention_days,
        events_days=settings.ledger_retention_days or None,
        hours_days=settings.rollup_hours_retention_days or None,
    )

    async def roll_up(_term: Term) -> None:
        await rollup.roll_up(pool)

    async def retire(_term: Term) -> None:
        await retention.retire(pool, keep)

    return (
        Duty("rollup", rollup.ROLL_UP_EVERY_S, rollup.ROLL_UP_S_MAX, roll_up),
        Duty("retention", retention.RETENTION_EVERY_S, retention.RETENTION_S_MAX, retire),
    )


def _reconciliation(settings: Settings, resources: Resources, config: Callable[[], GatewayConfig]) -> Duty:
    every_s = settings.reconcile_interval_s
    metrics = ReconciliationMetrics(resources.metrics.registry)
    reconciler = Reconciler(settings.require_postgres_direct_dsn(), config, metrics, every_s=every_s)
    return Duty("reconciliation", every_s, RECONCILE_S_MAX, reconciler.run)


def _statements(settings: Settings, pool: Pool) -> Duty:
    after = dt.timedelta(hours=settings.statement_close_after_h)

    async def close(_term: Term) -> None:
        await statement_sums.close_due(pool, after=after)

    return Duty("statements", statement_sums.CLOSE_DUE_EVERY_S, statement_sums.CLOSE_DUE_S_MAX, close)


async def _make_partitions(term: Term) -> None:
    async with term.connection() as connection:
        await make_partitions_ahead(connection)
