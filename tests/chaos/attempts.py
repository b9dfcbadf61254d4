"""What a client remembers of each request that it sent to a replica: the facts that the books are held against."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """How an attempt ended, as its client saw it."""

    COMPLETE = "complete"
    HUNG_UP = "hung up"
    """The client left."""
    CUT = "cut"
    """The answer had begun, and its connection broke or it ended with an error."""
    REFUSED = "refused"
    """An answer with an error for a status."""
    UNANSWERED = "unanswered"
    """The connection was refused, or broke before an answer began."""
    WAITED_OUT = "waited out"
    """Nothing came for longer than any client waits."""


@dataclass
class Attempt:
    """One request to one replica. Times are Unix time in seconds; token counts are what the answer itself told."""

    marker: str
    """In the prompt, so that the engines' records show it."""
    client: int
    key_id: str
    replica: int
    endpoint: str
    streamed: bool
    sent_at: float
    ended_at: float = 0.0
    end: End = End.UNANSWERED
    request_id: str | None = None
    status: int | None = None
    code: str | None = None
    """Of the error."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    texts: int = 0
    """How many events with text (or other content) were read."""

    @property
    def began(self) -> bool:
        """Whether an answer that is no refusal began: it must be in the ledger."""
        return self.status == 200
