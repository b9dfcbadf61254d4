"""When faults really happened, for the checks: what is allowed depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Happened:
    """Spans in Unix time: within which Redis lost its data, and in which something held a server up or away."""

    losses: list[tuple[float, float]] = field(default_factory=list)
    redis_troubles: list[tuple[float, float]] = field(default_factory=list)
    postgres_troubles: list[tuple[float, float]] = field(default_factory=list)
    engine_troubles: list[tuple[float, float]] = field(default_factory=list)
