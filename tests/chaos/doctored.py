"""A small run without a fault, made by hand, for tests that put faults into it, to see the checks find them."""

from __future__ import annotations

import uuid
from typing import Any

from gateway.domain.principal import Level
from tests.chaos.attempts import Attempt, End
from tests.chaos.facts import Facts, Served
from tests.chaos.happened import Happened
from tests.chaos.replicas import Killed
from tests.chaos.tenants import Rule, Tenants

KEY = uuid.UUID(int=1)
CAPACITY = 5


def sound_facts(requests: int = CAPACITY) -> Facts:
    """Return the facts of so many requests of one key, a second apart, all of which ended normally."""
    rules = [Rule(Level.KEY, KEY, {"requests_per_minute": 6, "requests_burst": CAPACITY, "tokens_per_minute": 6000})]
    facts = Facts([], [], [], [], [], Tenants([], rules), Happened(), [], {})
    for number in range(requests):
        add(facts, number, at=1000.0 + number)
    return facts


def add(facts: Facts, number: int, *, at: float) -> None:
    """Add one request that took half a second, with 10 prompt tokens (4 of them cached) and 20 completion tokens."""
    event_id = str(uuid.UUID(int=1000 + number))
    marker = f"chaos-000-{number:06d}"
    facts.attempts.append(
        Attempt(
            *(marker, 0, str(KEY), 0, "chat/completions", True, at - 0.01, at + 0.5, End.COMPLETE, event_id, 200),
            *(None, 10, 4, 20, 20),
        )
    )
    subjects = {name: str(KEY) for name in ("organization_id", "team_id", "user_id", "key_id")}
    opened: dict[str, Any] = {"event_id": event_id, "opened": at, "streamed": True, **subjects}
    facts.opens.append(opened | {"estimate_prompt_tokens": 10, "estimate_completion_tokens": 20})
    facts.events.append(
        {"event_id": event_id, "opened": at, "status": "ok", "coverage": "exact", "reaped": False}
        | {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 20, "duration_ms": 500}
        | {"cost_pico_usd": "100000"}
    )
    facts.served.append(Served(marker, "finished", 10, 20))


def cut_short(facts: Facts, number: int, *, generated: int, billed: int, reaped: bool = True) -> None:
    """Let one request's replica have been killed over it (or its client have hung up)."""
    event, attempt = facts.events[number], facts.attempts[number]
    status = "interrupted" if reaped else "client_closed"
    event.update(status=status, coverage="estimated", reaped=reaped, completion_tokens=billed)
    attempt.end, attempt.completion_tokens = (End.CUT if reaped else End.HUNG_UP), None
    facts.served[number] = Served(attempt.marker, "aborted", 10, generated)
    if reaped:
        facts.killed.append(Killed(0, attempt.ended_at, attempt.ended_at + 3))
