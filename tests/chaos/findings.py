"""What a check finds: one sentence for people, and the rows that show it; beside it the figures that were measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.attempts import Attempt
    from tests.chaos.facts import Facts

MATCH_BEFORE_S = 0.05
MATCH_AFTER_S = 2.0


@dataclass(frozen=True)
class Finding:
    """Something that must not be. `rows` are its evidence."""

    check: str
    says: str
    rows: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.check}: {self.says}"


@dataclass(frozen=True)
class Case:
    """One admitted request from all sides. `attempt` is None where no client can have sent it."""

    opened: dict[str, Any]
    event: dict[str, Any] | None
    attempt: Attempt | None

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Prompt, cached and completion tokens of the closing event, with its adjustments."""
        assert self.event is not None
        return self.event["prompt_tokens"], self.event["cached_tokens"], self.event["completion_tokens"]


def cases_of(facts: Facts) -> list[Case]:
    """Return every OPEN with its closing event, adjustments added, and the attempt that it belongs to.

    A client that never saw an answer does not know the id of its request. It had one request under way at a time, so
    key and time tell which it was.
    """
    events = {event["event_id"]: dict(event) for event in facts.events}
    for adjustment in facts.adjustments:
        event = events[adjustment["event_id"]]
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
            event[name] += adjustment[name]
    by_id = {attempt.request_id: attempt for attempt in facts.attempts if attempt.request_id}
    nameless: dict[str, list[Attempt]] = {}
    for attempt in facts.attempts:
        if not attempt.request_id:
            nameless.setdefault(attempt.key_id, []).append(attempt)
    return [
        Case(
            opened,
            events.get(opened["event_id"]),
            by_id.get(opened["event_id"]) or _sent_by(nameless.get(opened["key_id"], []), opened["opened"]),
        )
        for opened in facts.opens
    ]


def _sent_by(attempts: list[Attempt], opened: float) -> Attempt | None:
    """Return the last of a key's attempts that may have been opened at that time."""
    for attempt in reversed(attempts):
        if attempt.sent_at - MATCH_BEFORE_S <= opened <= attempt.ended_at + MATCH_AFTER_S:
            return attempt
    return None
