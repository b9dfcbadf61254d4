"""The ledger against what each replica says that it has opened and closed since its start, by its last checkpoint.

While a replica serves, its counters and the ledger are never of quite the same moment: then only what the traffic
between them cannot explain is drift. Where nothing was opened since the checkpoint, both must be equal.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.settle.baselines import AGE_MAX, Baseline, Kind, load, save
from gateway.settle.checkpoints import Totals
from gateway.settle.drift import Check, Drift, Findings, NotCompared

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg

    from gateway.storage.postgres import Connection, PoolProxy

APART_S = 5.0
"""How much older than its row in Postgres the counters of a checkpoint may be: longer than writing one may take."""

LIVE_S = 10.0
"""A replica lives whose heartbeat is not older."""

GONE_S = 180.0
"""After this, what a replica that is gone had not closed itself is closed for it."""

STATEMENT_S_MAX = 600.0

_REPLICAS = """
SELECT c.boot_id, c.taken_at, c.counters, r.started_at, r.hostname, now() AS now,
       extract(epoch FROM now() - r.heartbeat_at)::float8 AS silent_s
  FROM replica_checkpoint AS c JOIN replica AS r USING (boot_id)
"""

_FIGURES = ", ".join(
    f"COALESCE(sum({name}), 0) AS all_{name}, COALESCE(sum({name}) FILTER (WHERE sure), 0) AS sure_{name},"
    f" COALESCE(sum({name}) FILTER (WHERE NOT doubtful), 0) AS own_{name}"
    for name in ("prompt", "cached", "completion", "reasoning", "cost_pico_usd")
)

# What a replica closed itself, from its baseline on; a correction that it sent of what was closed in its place counts
# as its own end of that event. `sure` was there some time before the checkpoint, `all` is there now.
_SUMS = f"""
WITH known AS (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
        AS k (boot_id, sure_from, all_from, sure_until)
), own AS (
    SELECT k.*, COALESCE(late.ingested_at, e.ingested_at) AS at, e.reaped AND late.event_id IS NULL AS doubtful,
           e.prompt_tokens + COALESCE(late.prompt_tokens, 0) AS prompt,
           e.cached_tokens + COALESCE(late.cached_tokens, 0) AS cached,
           e.completion_tokens + COALESCE(late.completion_tokens, 0) AS completion,
           e.reasoning_tokens + COALESCE(late.reasoning_tokens, 0) AS reasoning,
           e.cost_pico_usd + COALESCE(late.cost_pico_usd, 0) AS cost_pico_usd
      FROM known AS k JOIN usage_event AS e
        ON e.boot_id = k.boot_id AND e.ingested_at > k.all_from AND e.ingested_at > (SELECT min(all_from) FROM known)
      LEFT JOIN usage_adjustment AS late ON late.event_id = e.event_id AND late.opened_at = e.opened_at
           AND late.reason = 'late_close'
), counted AS (
    SELECT *, at > sure_from AND at <= sure_until AND NOT doubtful AS sure FROM own
), opens AS (
    SELECT k.boot_id, count(*) AS opened FROM known AS k
      JOIN usage_open AS o ON o.boot_id = k.boot_id AND o.ingested_at > k.all_from
           AND o.ingested_at > (SELECT min(all_from) FROM known)
     GROUP BY 1
)
SELECT k.boot_id, COALESCE(max(opens.opened), 0) AS opened,
       count(at) AS all_closed, count(at) FILTER (WHERE sure) AS sure_closed,
       count(at) FILTER (WHERE NOT doubtful) AS own_closed, {_FIGURES}
  FROM known AS k LEFT JOIN counted ON counted.boot_id = k.boot_id LEFT JOIN opens ON opens.boot_id = k.boot_id
 GROUP BY k.boot_id
"""  # noqa: S608 - names of this module alone

_WORDS = {
    "closed": "requests",
    "prompt": "prompt tokens",
    "cached": "cached tokens",
    "completion": "completion tokens",
    "reasoning": "reasoning tokens",
    "cost_pico_usd": "pico-USD",
}


class _Replica(NamedTuple):
    """A replica's last checkpoint, and what it had counted at its baseline (nothing at its start)."""

    boot_id: UUID
    taken_at: dt.datetime
    now: dt.datetime
    name: str
    lives: bool
    counters: Totals
    base: Totals
    base_at: dt.datetime
    base_exact: bool

    def counted(self, name: str) -> int:
        """Return what it has counted since its baseline."""
        since: int = getattr(self.counters, name) - getattr(self.base, name)
        return since


async def verify_replicas(connection: Connection | PoolProxy) -> Findings:
    """Compare the ledger with the counters of every replica that is known.

    Of a replica that is gone the ledger must have at least what its last checkpoint says. Raises what asyncpg raises
    when Postgres is away.
    """
    found = Findings()
    async with connection.transaction(isolation="repeatable_read"):
        replicas = await _replicas(connection, found)
        rows = await connection.fetch(
            _SUMS,
            [each.boot_id for each in replicas],
            [each.base_at + dt.timedelta(seconds=0 if each.base_exact else APART_S) for each in replicas],
            [each.base_at - dt.timedelta(seconds=0 if each.base_exact else APART_S) for each in replicas],
            [each.taken_at - dt.timedelta(seconds=APART_S) for each in replicas],
            timeout=STATEMENT_S_MAX,
        )
        sums = {row["boot_id"]: row for row in rows}
        for replica in replicas:
            row = sums[replica.boot_id]
            exact = _is_idle(replica, row)
            drifts = list(_drifts(replica, row, exact=exact))
            found.drifts += drifts
            if not drifts and replica.lives and replica.now - replica.base_at > AGE_MAX:
                await _renew(connection, replica, exact=exact)
    found.compared[Check.REPLICAS] = len(replicas)
    return found


def _is_idle(replica: _Replica, row: asyncpg.Record) -> bool:
    """Whether the replica had closed all when the checkpoint was taken and has opened nothing since."""
    counters = replica.counters
    return counters.opened == counters.closed and row["opened"] == replica.counted("opened") and replica.base_exact


def _drifts(replica: _Replica, row: asyncpg.Record, *, exact: bool) -> list[Drift]:
    found = []
    for name, words in _WORDS.items():
        most, least = int(row[f"all_{name}"]), int(row[f"{'own' if exact else 'sure'}_{name}"])
        counted = replica.counted(name)
        nearest = min(max(counted, least), most)
        if counted > most or (counted < least and replica.lives):
            found.append(Drift(Check.REPLICAS, replica.name, words, nearest, counted))
    return found


async def _replicas(connection: Connection | PoolProxy, found: Findings) -> list[_Replica]:
    baselines = await load(connection, Kind.REPLICA)
    replicas = []
    for row in await connection.fetch(_REPLICAS):
        name = f"{row['hostname']} {row['boot_id']}"
        base = baselines.get(str(row["boot_id"]))
        if LIVE_S <= row["silent_s"] < GONE_S:
            reason = f"gone for {row['silent_s']:.0f} s: what it had open is closed for it soon"
            found.not_compared.append(NotCompared(Check.REPLICAS, name, reason))
            continue
        try:
            counters = msgspec.json.decode(row["counters"], type=Totals)
            known = msgspec.convert(base.figures, Totals) if base else Totals()
        except msgspec.ValidationError:
            found.not_compared.append(NotCompared(Check.REPLICAS, name, "its counters are those of another release"))
            continue
        replicas.append(
            _Replica(
                row["boot_id"],
                row["taken_at"],
                row["now"],
                name,
                lives=row["silent_s"] < LIVE_S,
                counters=counters,
                base=known,
                base_at=base.taken_at if base else row["started_at"],
                base_exact=bool(base.figures.get("exact")) if base else True,
            )
        )
    return replicas


async def _renew(connection: Connection | PoolProxy, replica: _Replica, *, exact: bool) -> None:
    """Compare from here on. Where the ledger has all, from now; else from the checkpoint, give or take a moment."""
    figures = {**msgspec.to_builtins(replica.counters), "exact": exact}
    at = replica.now if exact else replica.taken_at
    await save(connection, Kind.REPLICA, str(replica.boot_id), Baseline(at, figures))
