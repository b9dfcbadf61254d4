"""When everything has come to rest, nothing is held, nothing waits, and no log says anything that points to a bug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.chaos.check_limits import level_above_capacity
from tests.chaos.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.facts import Facts

LEASES = re.compile(r"pst:\{[^}]*\}:c:.*")
RESERVATION = re.compile(r"pst:\{[^}]*\}:r:([0-9a-f]{32})")
WITHDRAWN = "-"


def check_rest(facts: Facts) -> Iterator[Finding]:
    """Look at Redis, the spools and the logs."""
    if leases := {key: text for key, text in facts.redis.items() if LEASES.fullmatch(key)}:
        yield Finding("leases", f"{len(leases)} limits of concurrency still count requests", [leases])
    if left := list(_reservations_left(facts)):
        yield Finding("reservations", f"{len(left)} requests that were settled still hold what they had reserved", left)
    if above := list(level_above_capacity(facts.redis, facts.tenants.rules)):
        yield Finding("limits", f"{len(above)} buckets hold more than their capacity", above)
    if facts.spooled:
        yield Finding("spool", f"{len(facts.spooled)} spool files are not empty", [*facts.spooled])
    if facts.complaints:
        yield Finding("logs", f"replicas complained {len(facts.complaints)} times", [*facts.complaints])


def _reservations_left(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the events whose reservation is still there, but for those whose replica died: theirs expire."""
    events = {event["event_id"].replace("-", ""): event for event in facts.events}
    for key, text in facts.redis.items():
        found = RESERVATION.fullmatch(key)
        if found is None or text == WITHDRAWN:
            continue
        event = events.get(found[1])
        if event is not None and not event["reaped"]:
            yield event
