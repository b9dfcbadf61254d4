"""What a run left behind, as plain data: attempts of clients, the ledger, the engines' records, Redis, spools, logs."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis

from tests.chaos.happened import Happened
from tests.support.ledger import rows_of
from tests.support.servers import redis_time

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.attempts import Attempt
    from tests.chaos.replicas import Killed
    from tests.chaos.tenants import Tenants
    from tests.chaos.world import World

MARKER = re.compile(r"chaos-\d{3}-\d{6}")
COMMAND_S_MAX = 30.0
EXPECTED = frozenset({"ledger_away"})
"""Errors that are what happened: Postgres is stopped now and then."""
OPENS = """
SELECT event_id::text, extract(epoch FROM opened_at)::float8 AS opened, boot_id::text, organization_id::text,
       team_id::text, user_id::text, key_id::text, endpoint, streamed,
       estimate_prompt_tokens, estimate_completion_tokens
  FROM usage_open ORDER BY event_id
"""
EVENTS = """
SELECT event_id::text, extract(epoch FROM opened_at)::float8 AS opened, status, coverage, reaped, prompt_tokens,
       cached_tokens, completion_tokens, cost_pico_usd::text AS cost_pico_usd, duration_ms, attempts, endpoint,
       streamed, error_code
  FROM usage_event ORDER BY event_id
"""
ADJUSTMENTS = """
SELECT event_id::text, reason, prompt_tokens, cached_tokens, completion_tokens, cost_pico_usd::text AS cost_pico_usd
  FROM usage_adjustment ORDER BY event_id
"""


@dataclass(frozen=True)
class Served:
    """What an engine remembers of one request."""

    marker: str
    outcome: str
    prompt_tokens: int
    generated_tokens: int


@dataclass
class Facts:
    """All of it. Times are Unix time in seconds."""

    attempts: list[Attempt]
    opens: list[dict[str, Any]]
    events: list[dict[str, Any]]
    adjustments: list[dict[str, Any]]
    served: list[Served]
    tenants: Tenants
    happened: Happened
    killed: list[Killed]
    redis: dict[str, Any]
    """Keys that are left in Redis, with what they hold: texts, mappings of texts, or members with their scores."""
    redis_at: float = 0.0
    """When it was read, by its own clock."""
    away: list[tuple[float, float]] = field(default_factory=list)
    """Spans in which a replica limited by itself, by its own log."""
    spooled: list[str] = field(default_factory=list)
    """Records that are left in spools."""
    complaints: list[str] = field(default_factory=list)
    """Lines of logs that none should have."""


def gathered(world: World, attempts: list[Attempt], happened: Happened) -> Facts:
    """Collect the facts of a run that has come to rest."""
    dsn = world.postgres.address
    facts = Facts(
        attempts=attempts,
        opens=rows_of(dsn, OPENS),
        events=rows_of(dsn, EVENTS),
        adjustments=rows_of(dsn, ADJUSTMENTS),
        served=[served for engine in world.engines for served in _served(engine.state()["requests"])],
        tenants=world.tenants,
        happened=happened,
        killed=[killed for replica in world.replicas for killed in replica.killed],
        redis=redis_contents(world.redis.address),
        redis_at=redis_time(world.redis.address),
    )
    for replica in world.replicas:
        facts.spooled += spool_contents(replica.home / "spool")
        for log in replica.logs():
            away, complaints = read_log(log)
            facts.away += away
            facts.complaints += complaints
    return facts


def counted(world: World) -> Facts:
    """Return what there is to be said of budgets now: the ledger and Redis."""
    dsn = world.postgres.address
    ledger = (rows_of(dsn, OPENS), rows_of(dsn, EVENTS), rows_of(dsn, ADJUSTMENTS))
    return Facts([], *ledger, [], world.tenants, Happened(), [], redis_contents(world.redis.address))


def _served(records: list[dict[str, Any]]) -> list[Served]:
    found = []
    for record in records:
        marker = MARKER.search(json.dumps(record["body"]))
        if marker is not None:
            found.append(Served(marker[0], record["outcome"], record["prompt_tokens"], record["generated_tokens"]))
    return found


def redis_contents(address: str) -> dict[str, Any]:
    """Return every key with what it holds."""
    with redis.Redis.from_url(address, decode_responses=True, socket_timeout=COMMAND_S_MAX) as client:
        readers: dict[str, Any] = {
            "string": client.get,
            "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            "hash": client.hgetall,
        }
        return {str(key): readers.get(str(client.type(key)), client.type)(key) for key in client.scan_iter(count=1000)}


def spool_contents(folder: Path) -> list[str]:
    """Return the files of a spool that hold anything, as path and size."""
    return [
        f"{path}: {path.stat().st_size} bytes"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size and "lock" not in path.name
    ]


def read_log(log: Path) -> tuple[list[tuple[float, float]], list[str]]:
    """Return the spans in which a replica was without Redis, and what it should not have said."""
    away: list[tuple[float, float]] = []
    complaints: list[str] = []
    since: float | None = None
    last = 0.0
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of who was killed is cut; a traceback is not
            if text.startswith(("Traceback", "  File", "Exception", "Task ")):
                complaints.append(f"{log}: {text}")
            continue
        last = unix_time(line["timestamp"])
        if line["event"] == "redis_away":
            since = last
        elif line["event"] == "redis_back" and since is not None:
            away.append((since, last))
            since = None
        if "exception" in line or (line["level"] in {"error", "critical"} and line["event"] not in EXPECTED):
            complaints.append(f"{log}: {text}")
    if since is not None:
        away.append((since, last))
    return away, complaints


def unix_time(timestamp: str) -> float:
    """Return a log line's time in Unix time."""
    return dt.datetime.fromisoformat(timestamp).timestamp()
