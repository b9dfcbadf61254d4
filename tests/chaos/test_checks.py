"""Every check of a run finds what it is for, in data that were doctored, and nothing in data that are sound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.domain.principal import Level
from tests.chaos.attempts import End
from tests.chaos.check_limits import MARGIN_S
from tests.chaos.doctored import CAPACITY, KEY, add, cut_short, sound_facts
from tests.chaos.evidence import told, write_evidence
from tests.chaos.facts import read_log
from tests.chaos.findings import Finding
from tests.chaos.run import figures_of, judged
from tests.chaos.tenants import Rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.facts import Facts


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    facts = sound_facts()
    assert judged(facts) == []
    figures = figures_of(facts)
    assert figures["admitted"] == figures["ended with an exact count"] == CAPACITY
    assert (figures["lost or doubled events"], figures["inexact tokens"], figures["requests over a limit"]) == (0, 0, 0)


BUDGET = f"pst:{{x}}:s:{KEY.hex}:day:19700101:"


def adjusted(facts: Facts, times: int) -> None:
    """Let an event be corrected so often."""
    row = {"event_id": facts.events[0]["event_id"], "reason": "late_close", "cost_pico_usd": "0"}
    facts.adjustments += [row | {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}] * times


def unknown_to_clients(facts: Facts) -> None:
    """Let a request have been admitted that nobody sent."""
    facts.attempts.pop()
    facts.served.pop()


def one_too_many(facts: Facts) -> None:
    """Let more be granted at once than the bucket holds."""
    for number in range(CAPACITY, CAPACITY + 3):
        add(facts, number, at=1004.0)


def too_many_tokens(facts: Facts) -> None:
    """Let more tokens be reserved than the bucket holds."""
    facts.opens[2]["estimate_completion_tokens"] = 7000


def crowded(facts: Facts) -> None:
    """Let three requests run at once where two may."""
    facts.tenants.rules.append(Rule(Level.KEY, KEY, {"concurrent_requests": 2}))
    for event in facts.events[:3]:
        event["duration_ms"] = 4000


def unrecorded(facts: Facts) -> None:
    """Let an engine have answered whom no client heard and no ledger knows."""
    facts.opens.pop()
    facts.events.pop()
    facts.attempts[-1].status = None


FAULTS: dict[str, tuple[str, Callable[[Facts], object]]] = {
    "an event was lost": ("have no closing event", lambda facts: facts.events.pop()),
    "an event was written twice": ("more than once", lambda facts: facts.events.append(facts.events[0])),
    "an OPEN was lost": ("never opened", lambda facts: facts.opens.pop()),
    "an answer began without OPEN": ("without a record", lambda facts: (facts.opens.pop(), facts.events.pop())),
    "nobody sent it": ("no client sent", unknown_to_clients),
    "it was corrected twice": ("corrected twice", lambda facts: adjusted(facts, 2)),
    "a client waited in vain": ("not answered", lambda facts: setattr(facts.attempts[0], "end", End.WAITED_OUT)),
    "the client was told other tokens": ("other tokens", lambda facts: setattr(facts.attempts[0], "prompt_tokens", 9)),
    "the engine counted otherwise": (
        "other tokens",
        lambda facts: facts.served.__setitem__(0, replace(facts.served[0], generated_tokens=19)),
    ),
    "a complete answer is estimated": ("not exact", lambda facts: facts.events[0].update(coverage="estimated")),
    "an engine worked for free": (
        "in no ledger",
        unrecorded,
    ),
    "a killed stream is billed too little": (
        "than a checkpoint",
        lambda facts: cut_short(facts, 0, generated=400, billed=20),
    ),
    "a killed stream is billed too much": (
        "than a checkpoint",
        lambda facts: cut_short(facts, 0, generated=20, billed=30),
    ),
    "a hang-up is free": (
        "than a checkpoint",
        lambda facts: cut_short(facts, 0, generated=100, billed=0, reaped=False),
    ),
    "too many requests": ("requests above its line", one_too_many),
    "too many tokens": ("tokens above its line", too_many_tokens),
    "too many at once": ("requests at once, 2 are allowed", crowded),
    "a bucket is too full": (
        "more than their capacity",
        lambda facts: facts.redis.update({f"pst:{{x}}:b:{KEY.hex}:requests:": "5.5 1000"}),
    ),
    "a lease is left": ("still count requests", lambda facts: facts.redis.update({"pst:{x}:l:y:": [("a", 1.0)]})),
    "a budget counts too little": (
        "not what the ledger says",
        lambda facts: facts.redis.update({BUDGET: {"spent": "400", "reserved": "0"}}),
    ),
    "a budget counts too much": (
        "not what the ledger says",
        lambda facts: facts.redis.update({BUDGET: {"spent": "500", "reserved": "100"}}),
    ),
    "a reservation is left": (
        "still hold",
        lambda facts: facts.redis.update({f"pst:{{x}}:r:{facts.opens[0]['event_id'].replace('-', '')}": "1 2 3 4"}),
    ),
    "a spool is not empty": ("are not empty", lambda facts: facts.spooled.append("spool: 7 bytes")),
    "a replica had a traceback": ("complained", lambda facts: facts.complaints.append("Traceback")),
}


@pytest.mark.parametrize(("says", "doctor"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(says: str, doctor: Callable[[Facts], object]) -> None:
    facts = sound_facts()
    doctor(facts)
    assert [finding for finding in judged(facts) if says in str(finding)] != []


def test_what_is_promised_of_a_killed_replica_is_no_fault() -> None:
    facts = sound_facts()
    cut_short(facts, 0, generated=200, billed=20)
    cut_short(facts, 1, generated=100, billed=90, reaped=False)
    adjusted(facts, 1)
    assert judged(facts) == []


def test_what_has_lapsed_or_is_rounded_is_no_fault() -> None:
    facts = sound_facts()
    facts.redis_at = 2.0
    facts.redis["pst:{x}:l:y:"] = [("a", 1500.0)]
    facts.redis[BUDGET] = {"spent": "490", "reserved": "13"}
    assert judged(facts) == []


def test_leases_that_redis_lost_are_not_counted_for_a_while() -> None:
    facts = sound_facts()
    crowded(facts)
    assert judged(facts) != []
    facts.happened.losses.append((1000.5, 1000.6))
    assert judged(facts) == []


def test_a_loss_of_redis_allows_one_capacity_more() -> None:
    facts = sound_facts()
    for number in range(CAPACITY, 2 * CAPACITY):
        add(facts, number, at=1004.0)
    assert judged(facts) != []
    facts.happened.losses.append((1003.8, 1003.9))
    assert judged(facts) == []
    assert 0 < figures_of(facts)["capacities more per loss of Redis"] <= 1


def test_who_limits_by_itself_around_a_loss_of_redis_refills_twice() -> None:
    facts = sound_facts()
    for number in range(CAPACITY, 3 * CAPACITY):
        add(facts, number, at=1004.0)
    facts.happened.losses.append((1003.0, 1005.0))
    by_loss = figures_of(facts)["capacities more per loss of Redis"]
    facts.away.append((1003.0, 1005.0))
    both = figures_of(facts)["capacities more per loss of Redis"]
    assert by_loss - both == pytest.approx((2.0 + 2 * MARGIN_S) * 0.1 / CAPACITY), "of six a minute"
    assert both > 1


def test_logs_tell_when_a_replica_limited_by_itself_and_what_it_should_not_have_said(tmp_path: Path) -> None:
    lines = [
        '{"event": "redis_away", "level": "warning", "timestamp": "2026-01-01T00:00:01Z"}',
        '{"event": "redis_back", "level": "warning", "timestamp": "2026-01-01T00:00:03Z"}',
        '{"event": "ledger_away", "level": "error", "timestamp": "2026-01-01T00:00:04Z"}',
        '{"event": "x", "level": "error", "timestamp": "2026-01-01T00:00:05Z"}',
        '{"event": "redis_away", "level": "warning", "timestamp": "2026-01-01T00:00:06Z"}',
        "Traceback (most recent call last):",
        '{"event": "cut by a ki',
    ]
    (log := tmp_path / "gateway-1.log").write_text("\n".join(lines))
    away, complaints = read_log(log)
    assert [to - from_ for from_, to in away] == [2.0, 0.0]
    assert [text.partition(": ")[2][:9] for text in complaints] == ['{"event":', "Traceback"]


def test_a_failing_run_tells_its_seed_and_leaves_the_rows(tmp_path: Path) -> None:
    facts = sound_facts()
    findings = [Finding("events", "one is missing", [facts.opens[0]])]
    write_evidence(tmp_path, [], facts, findings)
    assert "--seed 42" in told(tmp_path, 42, findings)
    assert facts.opens[0]["event_id"] in (tmp_path / "finding-0-events.txt").read_text()
    assert len((tmp_path / "attempts.jsonl").read_text().splitlines()) == CAPACITY
