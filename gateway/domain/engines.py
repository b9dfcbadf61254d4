"""What a replica knows of an engine at a moment, for who looks on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine of a pool: how many requests of this replica run on it, and what keeps further ones away."""

    pool: str
    endpoint: str
    up: bool
    ejected: bool
    busy: bool
    in_flight: int
