"""One try of a call on one engine, as routing hands it to the relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.domain.config import EngineKind, Timeouts
    from gateway.domain.upstream import UpstreamConnection


class AttemptOutcome(StrEnum):
    """What an attempt taught about the engine."""

    OK = "ok"
    FAILED = "failed"  # unreachable, broke off, 5xx: counts against its health
    STALE = "stale"  # a kept connection had ended: says nothing about the engine, which may be tried again
    BUSY = "busy"  # 429: load, not failure
    REFUSED = "refused"  # 4xx: the request was wrong, the engine is fine
    ABANDONED = "abandoned"  # the client went away: says nothing about the engine


class Attempt(Protocol):
    """An engine that was chosen, and the slot that is held on it until `finish`."""

    pool: str
    engine: str
    engine_kind: EngineKind
    upstream_model: str
    headers: bytes
    timeouts: Timeouts

    @property
    def connection(self) -> UpstreamConnection:
        """The engine, as something to send requests to."""
        ...

    def finish(self, outcome: AttemptOutcome, *, retry_after_s: float | None = None) -> None:
        """Free the slot and tell how it went. The first call counts, later ones do nothing."""
        ...


Attempts = AsyncIterator[Attempt]
"""Engines to try in turn; the next one is asked for only before the first byte went to the client."""
