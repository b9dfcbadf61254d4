"""What the counters of replicas and engines said when they were last taken as right: what comes after is compared."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from gateway.storage.postgres import Connection, PoolProxy

AGE_MAX = dt.timedelta(hours=24)
"""After this a baseline that agrees is replaced: events are kept for longer, and counters that drift do so each day."""

KEPT = dt.timedelta(days=7)
"""How long the baseline is kept of a replica or engine that no longer exists."""

_LOAD = "SELECT subject, taken_at, figures FROM reconcile_baseline WHERE kind = $1"
_SAVE = """
WITH old AS (DELETE FROM reconcile_baseline WHERE taken_at < now() - $5::interval)
INSERT INTO reconcile_baseline (kind, subject, taken_at, figures) VALUES ($1, $2, $3, $4::jsonb)
ON CONFLICT (kind, subject) DO UPDATE SET taken_at = excluded.taken_at, figures = excluded.figures
"""


class Kind(StrEnum):
    """Whose counters they are."""

    REPLICA = "replica"
    ENGINE = "engine"


class Baseline(NamedTuple):
    """Counters at a moment. `figures` are as they were saved."""

    taken_at: dt.datetime
    figures: dict[str, Any]


async def load(connection: Connection | PoolProxy, kind: Kind) -> dict[str, Baseline]:
    """Return the baselines by whom they are of. Raises what asyncpg raises when Postgres is away."""
    return {
        subject: Baseline(taken_at, msgspec.json.decode(figures))
        for subject, taken_at, figures in await connection.fetch(_LOAD, kind.value)
    }


async def save(connection: Connection | PoolProxy, kind: Kind, subject: str, baseline: Baseline) -> None:
    """Replace the baseline of a replica or an engine. Raises what asyncpg raises when Postgres is away."""
    figures = msgspec.json.encode(baseline.figures).decode()
    await connection.execute(_SAVE, kind.value, subject, baseline.taken_at, figures, KEPT)
