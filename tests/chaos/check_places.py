"""No more requests at once than a limit of concurrency allows, by what the ledger says of when each ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.check_limits import COLUMNS, MARGIN_S, SKEW_S
from tests.chaos.findings import Finding
from tests.chaos.line import Outage, outages_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from tests.chaos.facts import Facts
    from tests.chaos.tenants import Rule

RENEWED_S = 12.0
"""How long after Redis has lost its leases all that run are counted again: they are renewed every ten seconds."""


def check_places(facts: Facts) -> Iterator[Finding]:
    """Count, at each opening that no outage explains, how many requests of a limit's subject ran."""
    outages = outages_of(facts.happened.losses, facts.away, MARGIN_S)
    for rule in facts.tenants.rules:
        if places := rule.values.get("concurrent_requests"):
            at_once, crowd = most_at_once(running_spans(facts, rule), outages)
            if at_once > places:
                says = f"{rule.level} {rule.subject_id}: {at_once} requests at once, {places} are allowed"
                yield Finding("places", says, [*crowd])


def running_spans(facts: Facts, rule: Rule) -> list[tuple[float, float, str]]:
    """Return from when to when each request of a subject surely held a place: not from its very beginning."""
    subject: UUID = rule.subject_id
    events = {event["event_id"]: event for event in facts.events if not event["reaped"]}
    return [
        (opened["opened"] + SKEW_S, opened["opened"] + events[opened["event_id"]]["duration_ms"] / 1000, event_id)
        for opened in facts.opens
        if opened[COLUMNS[rule.level]] == str(subject) and (event_id := opened["event_id"]) in events
    ]


def most_at_once(spans: list[tuple[float, float, str]], outages: list[Outage]) -> tuple[int, list[str]]:
    """Return the most requests that ran at once at any one's beginning without an outage before it, and their ids."""
    most, crowd = 0, list[str]()
    running: list[tuple[float, float, str]] = []
    for span in sorted(span for span in spans if span[0] < span[1]):
        running = [*(one for one in running if one[1] > span[0]), span]
        first = min(from_ for from_, _, _ in running) - SKEW_S
        explained = any(one.from_ <= span[0] and one.to + RENEWED_S >= first for one in outages)
        if not explained and len(running) > most:
            most, crowd = len(running), [event_id for _, _, event_id in running]
    return most, crowd
