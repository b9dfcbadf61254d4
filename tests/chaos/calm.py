"""Waiting until a run has come to rest: every request has ended everywhere, nothing is left to write down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.chaos.check_rest import budgets_off, leases_held
from tests.chaos.facts import counted, redis_contents, spool_contents
from tests.chaos.findings import Finding
from tests.support.ledger import rows_of
from tests.support.servers import redis_time
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.world import World

CALM_S_MAX = 60.0
REAPED_S_MAX = 90.0
"""A replica counts as dead after a while; then its events are closed."""
LEASES_S_MAX = 45.0
"""A lease lasts half a minute."""
BUDGETS_S_MAX = 100.0
"""Budgets are compared with the ledger every minute."""
LOOK_S = 1.0
UNCLOSED = """
SELECT count(*) AS count FROM usage_open AS opened
 WHERE NOT EXISTS (SELECT 1 FROM usage_event AS closed
                    WHERE closed.event_id = opened.event_id AND closed.opened_at = opened.opened_at)
"""


def calmed(world: World) -> Iterator[Finding]:
    """Wait for each thing that must come to rest; yield what does not. What is found then is for the checks to say."""

    def in_flight() -> float:
        pages = [replica.metrics() for replica in world.replicas]
        return sum(page["penstock_requests_in_flight"] + page["penstock_engine_requests_in_flight"] for page in pages)

    def on_engines() -> int:
        return sum(int(engine.counters()["running"]) + int(engine.counters()["waiting"]) for engine in world.engines)

    def unclosed() -> int:
        return int(rows_of(world.postgres.address, UNCLOSED)[0]["count"])

    def spooled() -> list[str]:
        return [file for replica in world.replicas for file in spool_contents(replica.home / "spool")]

    def leases() -> dict[str, Any]:
        return leases_held(redis_contents(world.redis.address), redis_time(world.redis.address))

    waits: list[tuple[str, Callable[[], object], float]] = [
        ("no request is in flight", in_flight, CALM_S_MAX),
        ("no engine works", on_engines, CALM_S_MAX),
        ("every event is closed", unclosed, REAPED_S_MAX),
        ("the spools are empty", spooled, CALM_S_MAX),
        ("no lease is held", _seldom(leases), LEASES_S_MAX),
        ("budgets are what the ledger says", _seldom(lambda: list(budgets_off(counted(world)))), BUDGETS_S_MAX),
    ]
    for what, left, timeout_s in waits:
        try:
            wait_for(lambda left=left: not left(), what, timeout_s)  # type: ignore[misc] # bound in its own turn
        except AssertionError:
            yield Finding("rest", f"not within {timeout_s:g} s: {what} (left: {left()})")


def _seldom(look: Callable[[], object]) -> Callable[[], object]:
    """Return what `look` said last, and ask it again once that is a second old: it reads very much."""
    known: list[tuple[float, object]] = []

    def asked() -> object:
        if not known or time.monotonic() - known[-1][0] > LOOK_S:
            known.append((time.monotonic(), look()))
        return known[-1][1]

    return asked
