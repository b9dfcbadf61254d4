"""What one replica does for all of them: the duties of the leader, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.observe.duties import DutyMetrics
from gateway.storage.leader import Duty, Leadership, Term
from gateway.storage.partitions import make_partitions_ahead

if TYPE_CHECKING:
    from gateway.resources import Resources
    from gateway.settings import Settings

PARTITIONS_EVERY_S = 3600.0
PARTITIONS_S_MAX = 60.0


def leadership(settings: Settings, resources: Resources) -> Leadership:
    """Return this replica's candidacy with all duties; to be called once, `run` does the rest."""
    return Leadership(
        settings.require_postgres_direct_dsn(),
        (Duty("partitions", PARTITIONS_EVERY_S, PARTITIONS_S_MAX, _make_partitions),),
        DutyMetrics(resources.metrics.registry),
        silence_s_max=settings.leader_silence_max_s,
    )


async def _make_partitions(term: Term) -> None:
    async with term.connection() as connection:
        await make_partitions_ahead(connection)
