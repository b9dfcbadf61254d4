"""No bucket over its line: what the ledger says was admitted, held against what each limit allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.chaos.findings import Finding
from tests.chaos.line import Charge, Outage, excess, outages_of
from tests.chaos.tenants import Rule, buckets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.facts import Facts

SKEW_S = 1.0
"""How long after a request was opened Redis may have been asked, and how much later it may have heard of its end."""
AT_ONCE_S = 1e-6
MARGIN_S = 1.0
"""How much earlier or later than its log a replica may have limited by itself."""
COLUMNS = {"organization": "organization_id", "team": "team_id", "user": "user_id", "key": "key_id"}


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Hold every bucket's grants against its line, with what is allowed where Redis was lost or away."""
    outages = outages_of(facts.happened.losses, facts.away, MARGIN_S)
    for rule, unit, capacity, refill_per_s in buckets_of(facts.tenants.rules):
        charges = charges_of(facts, rule, unit, outages)
        over = excess(charges, capacity, refill_per_s, outages) - tolerance(refill_per_s)
        if over > 0:
            says = f"{rule.level} {rule.subject_id}: {over:.1f} {unit} above its line of {capacity} + {refill_per_s:g}"
            yield Finding("limits", says, [*charges, *outages])


def tolerance(refill_per_s: float) -> float:
    """Return what the clocks of ledger and Redis may make of one bucket's level."""
    return 1.0 + refill_per_s * SKEW_S


def over_the_limit(facts: Facts, unit: str) -> float:
    """Return by how much any bucket of a unit granted more than capacity + refill while no outage was."""
    outages = outages_of(facts.happened.losses, facts.away, MARGIN_S)
    return max((0.0, *(over for _, _, over in _between(facts, unit, outages))))


def capacities_per_loss(facts: Facts) -> float:
    """Return how many capacities more than its line any bucket granted around one loss of Redis at most.

    Where replicas limited by themselves in the same span, the line has the refill of that time twice, as it has without
    a loss.
    """
    outages = outages_of(facts.happened.losses, facts.away, MARGIN_S)
    alone = outages_of((), facts.away, MARGIN_S)
    worst = 0.0
    for rule, unit, capacity, refill_per_s in buckets_of(facts.tenants.rules):
        charges = charges_of(facts, rule, unit, outages)
        for before, outage, after in zip([None, *outages], outages, [*outages[1:], None], strict=False):
            if outage.lost:
                window = _within(charges, before.to if before else None, after.from_ if after else None)
                over = excess(window, capacity, refill_per_s, []) - tolerance(refill_per_s)
                worst = max(worst, (over - refill_per_s * _shared_s(outage, alone)) / capacity)
    return worst


def _shared_s(outage: Outage, others: list[Outage]) -> float:
    """Return for how many seconds of an outage one of the others was, too."""
    return sum(max(min(outage.to, other.to) - max(outage.from_, other.from_), 0.0) for other in others)


def _between(facts: Facts, unit: str, outages: list[Outage]) -> Iterator[tuple[Rule, int, float]]:
    """Yield rule, capacity and excess of each bucket in each span between two outages."""
    for rule, of_unit, capacity, refill_per_s in buckets_of(facts.tenants.rules):
        if of_unit != unit:
            continue
        charges = charges_of(facts, rule, unit, outages)
        for before, after in zip([None, *outages], [*outages, None], strict=True):
            window = _within(charges, before.to if before else None, after.from_ if after else None)
            over = excess(window, capacity, refill_per_s, []) - tolerance(refill_per_s)
            yield rule, capacity, over


def _within(charges: list[Charge], from_: float | None, to: float | None) -> list[Charge]:
    return [one for one in charges if (from_ is None or one.at >= from_) and (to is None or one.at <= to)]


def charges_of(facts: Facts, rule: Rule, unit: str, outages: list[Outage]) -> list[Charge]:
    """Return what a rule's bucket of a unit was charged: what was reserved, and at its end the difference to the use.

    Times are shifted to what is kindest to the bucket, by what the clocks of ledger and Redis may differ.
    """
    events = {event["event_id"]: event for event in facts.events}
    found = []
    for opened in facts.opens:
        if opened[COLUMNS[rule.level]] != str(rule.subject_id):
            continue
        reserved = _amount(unit, opened["estimate_prompt_tokens"], opened["estimate_completion_tokens"])
        found.append(Charge(opened["opened"], reserved, granted=True))
        event = events.get(opened["event_id"])
        if event is None or event["reaped"]:
            continue  # nobody was left to give anything back
        ended = opened["opened"] + event["duration_ms"] / 1000
        more = _amount(unit, event["prompt_tokens"], event["completion_tokens"]) - reserved
        if more > 0 and _lost_between(opened["opened"], ended + SKEW_S, outages):
            continue  # the reservation was forgotten, and a settlement of nothing changes nothing
        if more:
            at = ended + SKEW_S if more > 0 else max(ended - SKEW_S, opened["opened"] + AT_ONCE_S)
            found.append(Charge(at, more, granted=False))
    return found


def _amount(unit: str, prompt: int, completion: int) -> int:
    return {"requests": 1, "tokens": prompt + completion, "input_tokens": prompt, "output_tokens": completion}[unit]


def _lost_between(from_: float, to: float, outages: list[Outage]) -> bool:
    return any(outage.from_ <= to and outage.to >= from_ for outage in outages)


def level_above_capacity(contents: dict[str, Any], rules: list[Rule]) -> Iterator[tuple[str, Any]]:
    """Yield the buckets in Redis whose level is above their capacity."""
    capacities = {
        (rule.subject_id.hex, unit.replace("_", "-")): capacity for rule, unit, capacity, _ in buckets_of(rules)
    }
    for key, text in contents.items():
        parts = key.split(":")
        if len(parts) > 4 and parts[2] == "b":
            capacity = capacities.get((parts[3], parts[4]))
            if capacity is not None and float(text.split()[0]) > capacity:
                yield key, text
