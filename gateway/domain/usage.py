"""Tokens used by one request, as the engine counted them or as the gateway had to estimate them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Coverage(StrEnum):
    """Where the figures of a usage come from."""

    EXACT = "exact"  # the engine said so
    ESTIMATED = "estimated"  # counted or estimated by the gateway


class Status(StrEnum):
    """How an admitted request ended."""

    OK = "ok"
    CLIENT_CLOSED = "client_closed"
    UPSTREAM_ERROR = "upstream_error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one request. `cached` is part of `prompt`; `reasoning` is part of `completion`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    coverage: Coverage = Coverage.EXACT

    @property
    def uncached(self) -> int:
        """Prompt tokens that the engine had to compute."""
        return max(self.prompt - self.cached, 0)

    @property
    def exact(self) -> bool:
        """Whether the engine itself counted."""
        return self.coverage is Coverage.EXACT


NO_USAGE = TokenUsage()

UNSERVED = TokenUsage(coverage=Coverage.ESTIMATED)
"""Nothing that anybody is charged for; what an engine may have done all the same is not known."""
