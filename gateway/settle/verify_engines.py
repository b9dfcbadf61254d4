"""The ledger against the engines' own counters, since a baseline of both.

An engine counts a token when it is there, the ledger when the request has ended. So each reading of an engine stands
between two snapshots of the ledger: one from before it, and one from after those requests have ended that were open
meanwhile. The engine must have at least what the first has and at most what the second has, and what is open still.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.providers.engine_counters import EngineCounters, NoCounters, read_counters
from gateway.settle.baselines import AGE_MAX, Baseline, Kind, load, save
from gateway.settle.drift import Check, Drift, Findings, NotCompared

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    import asyncpg

    from gateway.domain.config import GatewayConfig, PoolConfig
    from gateway.storage.postgres import Connection, PoolProxy

SCRAPES_MAX = 16
"""Engines that are read at a time."""

OPEN_S_MAX = 5.0
"""How long to wait for the requests to end that were open when the engines were read."""

OPEN_FACTOR = 4
"""What is open still may have used as many times its estimate."""

TOLERANCE = 0.001
"""What the two may differ by, as a share of the tokens, beside those that were estimated."""

STATEMENT_S_MAX = 600.0
_LOOK_S = 0.1

_SNAPSHOT = "SELECT pg_current_snapshot()::text"
_OPEN = """
SELECT count(*) AS requests, COALESCE(sum(estimate_prompt_tokens), 0) AS prompt,
       COALESCE(sum(estimate_completion_tokens), 0) AS generation, pg_current_snapshot()::text AS snapshot, now() AS now
  FROM usage_open AS o
 WHERE opened_at > $1::timestamptz - interval '25 hours' AND opened_at <= $1 AND deadline_at > $1 - interval '1 hour'
   AND NOT EXISTS (SELECT FROM usage_event AS e WHERE e.event_id = o.event_id AND e.opened_at = o.opened_at OFFSET 0)
"""

# `most` came after the baseline's first snapshot, `least` after its second one and before this reading's first. What an
# event may have cost the engine that was estimated: what it says, or what was expected of it. One that was tried on
# several engines, or on nobody knows which, may have cost any of them.
_SUMS = """
WITH known AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS k (engine, before, after)
), event AS (
    SELECT e.*, greatest(e.prompt_tokens, COALESCE(o.estimate_prompt_tokens, 0)) AS prompt_max,
           greatest(e.completion_tokens, COALESCE(o.estimate_completion_tokens, 0)) AS generation_max
      FROM usage_event AS e LEFT JOIN usage_open AS o
        ON e.coverage = 'estimated' AND o.event_id = e.event_id AND o.opened_at = e.opened_at
     WHERE e.ingest_xid >= (SELECT min(pg_snapshot_xmin(before::pg_snapshot)::text::numeric) FROM known)::text::xid8
), late AS (
    SELECT ingest_xid, abs(prompt_tokens) AS prompt, abs(completion_tokens) AS generation FROM usage_adjustment
     WHERE reason = 'late_close'
       AND ingest_xid >= (SELECT min(pg_snapshot_xmin(before::pg_snapshot)::text::numeric) FROM known)::text::xid8
)
SELECT k.engine, sums.*,
       (SELECT COALESCE(sum(prompt), 0) FROM late WHERE NOT pg_visible_in_snapshot(ingest_xid, k.before::pg_snapshot))
           AS late_prompt,
       (SELECT COALESCE(sum(generation), 0) FROM late
         WHERE NOT pg_visible_in_snapshot(ingest_xid, k.before::pg_snapshot)) AS late_generation
  FROM known AS k CROSS JOIN LATERAL (
    SELECT COALESCE(sum(prompt_tokens) FILTER (WHERE own), 0) AS most_prompt,
           COALESCE(sum(prompt_tokens - cached_tokens) FILTER (WHERE own), 0) AS most_computed,
           COALESCE(sum(completion_tokens) FILTER (WHERE own), 0) AS most_generation,
           COALESCE(sum(prompt_tokens) FILTER (WHERE own AND within), 0) AS least_prompt,
           COALESCE(sum(prompt_tokens - cached_tokens) FILTER (WHERE own AND within), 0) AS least_computed,
           COALESCE(sum(completion_tokens) FILTER (WHERE own AND within), 0) AS least_generation,
           COALESCE(sum(prompt_max) FILTER (WHERE unsure), 0) AS unsure_prompt,
           COALESCE(sum(generation_max) FILTER (WHERE unsure), 0) AS unsure_generation
      FROM (
        SELECT event.*, event.engine = k.engine AS own,
               NOT pg_visible_in_snapshot(ingest_xid, k.after::pg_snapshot)
                   AND pg_visible_in_snapshot(ingest_xid, $4::text::pg_snapshot) AS within,
               attempts <> 1 OR (coverage = 'estimated'
                   AND (event.engine IS NULL OR event.engine IN (k.engine, 'unknown'))) AS unsure
          FROM event WHERE NOT pg_visible_in_snapshot(ingest_xid, k.before::pg_snapshot)
      ) AS one
  ) AS sums
"""


class _Reading(NamedTuple):
    """The engines' counters, between two snapshots of the ledger; `open_*` is what was open still at the second."""

    counters: Mapping[str, EngineCounters]
    before: str
    after: str
    open_prompt: int
    open_generation: int
    now: dt.datetime


async def verify_engines(
    connection: Connection | PoolProxy, config: GatewayConfig, *, new_baseline: bool = False
) -> Findings:
    """Compare the ledger with the counters of every engine of penstock.yaml, since a baseline that Postgres holds.

    The first reading of an engine, and the first after its restart, is the baseline; so is any with `new_baseline`.
    Raises what asyncpg raises when Postgres is away.
    """
    found = Findings()
    reading = await _read(connection, config, found)
    baselines = await load(connection, Kind.ENGINE)
    next_xid = int(reading.after.split(":")[1])
    compared = {}
    for engine, counters in reading.counters.items():
        base = baselines.get(engine)
        reason = _no_base(base, counters, next_xid)
        if base is None or reason or new_baseline:
            found.not_compared.append(
                NotCompared(Check.ENGINES, engine, f"{reason or 'as asked'}: compared from now on")
            )
            await save(connection, Kind.ENGINE, engine, _baseline(counters, reading))
        else:
            compared[engine] = base
    rows = await connection.fetch(
        _SUMS,
        list(compared),
        [base.figures["before"] for base in compared.values()],
        [base.figures["after"] for base in compared.values()],
        reading.before,
        timeout=STATEMENT_S_MAX,
    )
    for row in rows:
        engine = row["engine"]
        base, counters = compared[engine], reading.counters[engine]
        found.drifts += _drifts(engine, base, counters, reading, row)
        renewed = reading.now - base.taken_at > AGE_MAX
        last = {"last_prompt": counters.prompt, "last_generation": counters.generation}
        kept = _baseline(counters, reading) if renewed else Baseline(base.taken_at, {**base.figures, **last})
        await save(connection, Kind.ENGINE, engine, kept)
    found.compared[Check.ENGINES] = len(rows)
    return found


async def _read(connection: Connection | PoolProxy, config: GatewayConfig, found: Findings) -> _Reading:
    before = await connection.fetchval(_SNAPSHOT)
    engines = {endpoint: pool for pool in config.pools.values() for endpoint in pool.endpoints}
    counters = await _scrape(engines, found)
    at = await connection.fetchval("SELECT clock_timestamp()")
    deadline_s = asyncio.get_running_loop().time() + OPEN_S_MAX
    while True:
        row = await connection.fetchrow(_OPEN, at)
        assert row is not None, "an aggregate has a row"
        if not row["requests"] or asyncio.get_running_loop().time() > deadline_s:
            break
        await asyncio.sleep(_LOOK_S)
    return _Reading(
        counters,
        before,
        row["snapshot"],
        OPEN_FACTOR * int(row["prompt"]),
        OPEN_FACTOR * int(row["generation"]),
        row["now"],
    )


async def _scrape(engines: Mapping[str, PoolConfig], found: Findings) -> dict[str, EngineCounters]:
    turns = asyncio.Semaphore(SCRAPES_MAX)

    async def one(endpoint: str, pool: PoolConfig) -> EngineCounters | NotCompared:
        async with turns:
            try:
                return await read_counters(pool, endpoint)
            except NoCounters as error:
                return NotCompared(Check.ENGINES, endpoint, str(error))

    answers: Sequence[Any] = await asyncio.gather(*(one(endpoint, pool) for endpoint, pool in engines.items()))
    counters = {}
    for endpoint, answer in zip(engines, answers, strict=True):
        if isinstance(answer, NotCompared):
            found.not_compared.append(answer)
        else:
            counters[endpoint] = answer
    return counters


def _no_base(base: Baseline | None, now: EngineCounters, next_xid: int) -> str:
    """Return why what an engine counts now cannot be compared with its baseline, empty when it can."""
    if base is None:
        return "read for the first time"
    figures = base.figures
    if now.prompt < figures["last_prompt"] or now.generation < figures["last_generation"]:
        return "restarted"
    if now.started_s != figures["started_s"]:
        return "restarted"
    if int(figures["after"].split(":")[1]) > next_xid:
        return "read beside another server's ledger, before this one was restored"
    return ""


def _baseline(counters: EngineCounters, reading: _Reading) -> Baseline:
    return Baseline(
        reading.now,
        {
            "prompt": counters.prompt,
            "generation": counters.generation,
            "started_s": counters.started_s,
            "before": reading.before,
            "after": reading.after,
            "open_prompt": reading.open_prompt,
            "open_generation": reading.open_generation,
            "last_prompt": counters.prompt,
            "last_generation": counters.generation,
        },
    )


def _drifts(engine: str, base: Baseline, now: EngineCounters, reading: _Reading, row: asyncpg.Record) -> list[Drift]:
    found = []
    column = "computed" if now.prompt_is_computed else "prompt"
    for kind, words, name in (
        ("prompt", f"{column} tokens", column),
        ("generation", "completion tokens", "generation"),
    ):
        counted: int = getattr(now, kind) - base.figures[kind]
        most, least = int(row[f"most_{name}"]), int(row[f"least_{name}"])
        allowed = int(row[f"unsure_{kind}"]) + int(row[f"late_{kind}"]) + int(TOLERANCE * max(counted, most))
        most_open: int = getattr(reading, f"open_{kind}")
        least_open: int = base.figures[f"open_{kind}"]
        if counted > most + most_open + allowed:
            found.append(Drift(Check.ENGINES, engine, words, most, counted, allowed + most_open))
        elif counted < least - least_open - allowed:
            found.append(Drift(Check.ENGINES, engine, words, least, counted, allowed + least_open))
    return found
