"""Every admitted request has exactly one closing event: none is lost, none is doubled, none is anybody's invention."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.chaos.attempts import End
from tests.chaos.findings import Finding, cases_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.facts import Facts


def check_events(facts: Facts) -> Iterator[Finding]:
    """Hold OPENs, closing events and what clients saw against each other."""
    opens = Counter(row["event_id"] for row in facts.opens)
    events = Counter(row["event_id"] for row in facts.events)
    if lost := [row for row in facts.opens if row["event_id"] not in events]:
        yield Finding("events", f"{len(lost)} admitted requests have no closing event", lost)
    if doubled := [name for name, count in (*opens.items(), *events.items()) if count > 1]:
        yield Finding("events", f"{len(doubled)} events are there more than once", doubled)
    if unopened := [row for row in facts.events if row["event_id"] not in opens]:
        yield Finding("events", f"{len(unopened)} closing events were never opened", unopened)
    if unknown := [one for one in facts.attempts if one.began and one.request_id not in opens]:
        yield Finding("events", f"{len(unknown)} answers began without a record of their request", unknown)
    if foreign := [case.opened for case in cases_of(facts) if case.attempt is None]:
        yield Finding("events", f"{len(foreign)} requests were admitted that no client sent", foreign)
    corrected = Counter((row["event_id"], row["reason"]) for row in facts.adjustments)
    if repeated := [name for name, count in corrected.items() if count > 1]:
        yield Finding("events", f"{len(repeated)} events were corrected twice for the same reason", repeated)
    if hung := [one for one in facts.attempts if one.end is End.WAITED_OUT]:
        yield Finding("clients", f"{len(hung)} requests were not answered at all while their replica lived", hung)


def lost_or_doubled(facts: Facts) -> int:
    """Return how many events are missing or too many."""
    closed = Counter(row["event_id"] for row in facts.events)
    opened = {row["event_id"] for row in facts.opens}
    begun = {attempt.request_id for attempt in facts.attempts if attempt.began}
    return len((opened | begun) - closed.keys()) + sum(count - 1 for count in closed.values())
