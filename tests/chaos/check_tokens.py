"""Tokens: exact where a request ended normally, near the truth where it was cut short; engines tell the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.attempts import End
from tests.chaos.findings import Case, Finding, cases_of
from tests.chaos.world import TOKENS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.facts import Facts, Served

CHECKPOINT_S = 5.0
"""How often a replica writes down what its streams have used: what it does not know when it is killed."""
LATE_S = 1.5
"""What a busy machine adds to it, and how long an engine may go on after a hang-up."""
AHEAD_TOKENS = 4
"""A delta may hold a token more than the engine's own record at the moment that it was cut."""
UNWRITTEN_S = 2.0
"""How soon after an answer's end its replica must be killed for its closing event to be lost with it."""


def check_tokens(facts: Facts) -> Iterator[Finding]:
    """Hold clients, ledger and engines against each other, request by request."""
    served = served_by_marker(facts)
    cases = [case for case in cases_of(facts) if case.event is not None and case.attempt is not None]
    if wrong := list(inexact(cases, served)):
        yield Finding("tokens", f"{len(wrong)} requests that ended normally have other tokens than were told", wrong)
    if worse := [case for case in cases if _should_be_exact(case, facts) and not is_exact(case)]:
        yield Finding("tokens", f"{len(worse)} complete answers are not exact in the ledger", worse)
    if far := [(case, served.get(_marker(case), [])) for case in cases if not estimate_fits(case, served, facts)]:
        yield Finding("estimates", f"{len(far)} estimates are farther off than a checkpoint", far)
    markers = {_marker(case) for case in cases}
    if free := [one for name, records in served.items() for one in records if is_free(one, name, markers, facts)]:
        yield Finding("tokens", f"{len(free)} requests were answered by an engine and are in no ledger", free)


def served_by_marker(facts: Facts) -> dict[str, list[Served]]:
    """Return the engines' records of each attempt; one that another engine took over has two."""
    found: dict[str, list[Served]] = {}
    for served in facts.served:
        found.setdefault(served.marker, []).append(served)
    return found


def is_exact(case: Case) -> bool:
    """Whether the ledger says that a request ended normally with its engine's own usage."""
    return case.event is not None and (case.event["status"], case.event["coverage"]) == ("ok", "exact")


def inexact(cases: list[Case], served: dict[str, list[Served]]) -> Iterator[tuple[Case, list[Served]]]:
    """Yield the exact events whose tokens their engine or their client knows otherwise, with the engine's records."""
    for case in cases:
        if not is_exact(case):
            continue
        assert case.attempt is not None
        prompt, cached, completion = case.tokens
        records = served.get(_marker(case), [])
        told = (case.attempt.prompt_tokens, case.attempt.cached_tokens, case.attempt.completion_tokens)
        as_told = case.attempt.end is not End.COMPLETE or told == (prompt, cached, completion)
        as_served = (prompt, completion) in [(one.prompt_tokens, one.generated_tokens) for one in records]
        if not (as_told and as_served):
            yield case, records


def estimate_fits(case: Case, served: dict[str, list[Served]], facts: Facts) -> bool:
    """Whether the completion of an estimated event lies as near to what its engines generated as is promised."""
    assert case.event is not None
    if case.event["coverage"] == "exact":
        return True
    generated = sum(one.generated_tokens for one in served.get(_marker(case), []))
    billed = case.tokens[2]
    unknown_s = LATE_S + (CHECKPOINT_S + _unwritten_s(case, facts) if case.event["reaped"] else 0.0)
    return billed - AHEAD_TOKENS <= generated + _guessed(case) and generated - billed <= unknown_s * TOKENS_PER_S


def unbilled_s(case: Case, served: dict[str, list[Served]], facts: Facts) -> float:
    """Return how many seconds of what was generated an estimated completion lacks, while Postgres was there."""
    generated = sum(one.generated_tokens for one in served.get(_marker(case), []))
    return max((generated - case.tokens[2]) / TOKENS_PER_S - _unwritten_s(case, facts), 0.0)


def is_free(served: Served, marker: str, markers: set[str], facts: Facts) -> bool:
    """Whether an engine's finished answer was never admitted, although no replica was killed over it."""
    if served.outcome != "finished" or marker in markers:
        return False
    attempt = next(one for one in facts.attempts if one.marker == marker)
    return not _killed_near(attempt.replica, attempt.sent_at, attempt.ended_at, facts)


def _unwritten_s(case: Case, facts: Facts) -> float:
    """How long no checkpoint could be written while a request ran; where one failed, the next is what is known."""
    assert case.attempt is not None
    from_, to = case.attempt.sent_at, case.attempt.ended_at
    spans = [(max(one, from_), min(other, to)) for one, other in facts.happened.postgres_troubles]
    troubles = [other - one for one, other in spans if other >= one]
    return sum(troubles) + (CHECKPOINT_S if troubles else 0.0)


def _guessed(case: Case) -> float:
    """How many tokens more than were generated may be billed: of a whole answer only the time that it took is known."""
    return 0.0 if case.opened["streamed"] else LATE_S * TOKENS_PER_S


def _should_be_exact(case: Case, facts: Facts) -> bool:
    """Whether the client had all of its answer, and the replica lived long enough to write that down."""
    attempt = case.attempt
    assert attempt is not None
    return attempt.end is End.COMPLETE and not _killed_near(attempt.replica, attempt.sent_at, attempt.ended_at, facts)


def _killed_near(replica: int, from_: float, to: float, facts: Facts) -> bool:
    return any(
        killed.replica == replica and from_ - UNWRITTEN_S <= killed.at <= to + UNWRITTEN_S for killed in facts.killed
    )


def _marker(case: Case) -> str:
    assert case.attempt is not None
    return case.attempt.marker
