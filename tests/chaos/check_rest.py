"""When everything has come to rest, nothing is held, nothing waits, and no log says anything that points to a bug."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import TYPE_CHECKING, Any

from tests.chaos.check_limits import level_above_capacity
from tests.chaos.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.facts import Facts

LEASE = re.compile(r"pst:\{[^}]*\}:l:.*")
BUDGET = re.compile(r"pst:\{[^}]*\}:s:(?P<subject>[0-9a-f]{32}):(?P<period>\w+):(?P<start>\d{8}):")
DAYS = {"day": 1, "week": 7, "month": 31}
PICO_PER_NANO = 1000
RESERVATION = re.compile(r"pst:\{[^}]*\}:r:([0-9a-f]{32})")
WITHDRAWN = "-"
SETTLE_S = 2.0
"""Within which an event that has ended is settled in Redis, on a busy machine and with a pause of Redis in between."""


def check_rest(facts: Facts) -> Iterator[Finding]:
    """Look at Redis, the spools and the logs."""
    if leases := leases_held(facts.redis, facts.redis_at):
        yield Finding("leases", f"{len(leases)} limits of concurrency still count requests", [leases])
    if wrong := list(budgets_off(facts)):
        yield Finding("budgets", f"{len(wrong)} budgets are not what the ledger says", wrong)
    if left := list(_reservations_left(facts)):
        yield Finding("reservations", f"{len(left)} requests that were settled still hold what they had reserved", left)
    if above := list(level_above_capacity(facts.redis, facts.tenants.rules)):
        yield Finding("limits", f"{len(above)} buckets hold more than their capacity", above)
    if facts.spooled:
        yield Finding("spool", f"{len(facts.spooled)} spool files are not empty", [*facts.spooled])
    if facts.complaints:
        yield Finding("logs", f"replicas complained {len(facts.complaints)} times", [*facts.complaints])


def leases_held(contents: dict[str, Any], now: float) -> dict[str, Any]:
    """Return the leases that still count somebody; one that has lapsed counts nobody, although it is there."""
    return {
        key: held
        for key, members in contents.items()
        if LEASE.fullmatch(key) and (held := [member for member, lapses_ms in members if lapses_ms > now * 1000])
    }


def _reservations_left(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the events whose reservation is still there, but for those whose replica died: theirs expire.

    It may have died just after the event had ended, too, with the word of that on its way to Redis.
    """
    events = {event["event_id"].replace("-", ""): event for event in facts.events}
    for key, text in facts.redis.items():
        found = RESERVATION.fullmatch(key)
        if found is None or text == WITHDRAWN:
            continue
        event = events.get(found[1])
        if event is None or event["reaped"]:
            continue
        ended = event["opened"] + event["duration_ms"] / 1000
        if not any(ended <= killed.at <= ended + SETTLE_S for killed in facts.killed):
            yield event


def budgets_off(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the budgets whose count in Redis is not the sum of the ledger, by more than the rounding of each event."""
    costs = {event["event_id"]: int(event["cost_pico_usd"]) for event in facts.events}
    for adjustment in facts.adjustments:
        costs[adjustment["event_id"]] += int(adjustment["cost_pico_usd"])
    for key, fields in facts.redis.items():
        found = BUDGET.fullmatch(key)
        if found is None:
            continue
        start = dt.datetime.strptime(found["start"], "%Y%m%d").replace(tzinfo=dt.UTC)
        end = start + dt.timedelta(days=DAYS[found["period"]])
        subject = str(uuid.UUID(found["subject"]))
        billed = [
            costs.get(opened["event_id"], 0)
            for opened in facts.opens
            if subject in (opened["organization_id"], opened["team_id"], opened["user_id"], opened["key_id"])
            and start.timestamp() <= opened["opened"] < end.timestamp()
        ]
        ledger = sum(billed) / PICO_PER_NANO
        counted = int(fields["spent"]) + int(fields["reserved"])
        if abs(counted - ledger) > len(billed) + 1:
            yield {"budget": key, "counted": counted, "ledger": ledger, "fields": fields, "requests": len(billed)}
