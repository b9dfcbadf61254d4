"""What is measured: each scenario is an engine, a load, and the figures that say how the gateway did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bench.pair import EngineSpec, LoadSpec

Kind = Literal["saturate", "added", "paced", "start-up"]

CHUNK_MS = 10.0
# Consecutive starts this share of a chunk apart spread the streams' chunks evenly over it, whatever their number.
GOLDEN_SHARE = 0.618034
STREAM_CHUNKS = 300


@dataclass(frozen=True, slots=True)
class Scenario:
    """One measurement.

    `kind` says what it is about: "saturate" how much one core does, "added" what latency the gateway adds at a rate
    that it easily bears, "paced" what a fixed load costs, "start-up" how long it takes until it serves; that last one
    has no load. `targeted`: the targets of its kind hold for it.
    """

    name: str
    kind: Kind
    about: str
    engine: EngineSpec
    load: LoadSpec
    body_bytes: int = 2_000
    targeted: bool = True

    @property
    def stream_s(self) -> float:
        """How long one answer takes at the engine's pace, in seconds."""
        chunks = self.engine.chunks if self.load.stream else 0
        return (self.engine.first_token_ms + chunks * self.engine.chunk_ms) / 1000


def _paced_load(streams: int) -> LoadSpec:
    ramp_s = streams * GOLDEN_SHARE * CHUNK_MS / 1000
    return LoadSpec(connections=streams, stream=True, ramp_s=ramp_s, expect_chunks=STREAM_CHUNKS)


_PACED_ENGINE = EngineSpec(first_token_ms=20, chunk_ms=CHUNK_MS, chunks=STREAM_CHUNKS)
_LATENCY_CHUNKS = 20

SCENARIOS = (
    Scenario(
        "answers-2k", "saturate", "non-streaming, 2 KB requests, as many as one core takes", EngineSpec(), LoadSpec(384)
    ),
    Scenario(
        "answers-100k",
        "saturate",
        "non-streaming, 100 KB requests, as many as one core takes",
        EngineSpec(),
        LoadSpec(128),
        body_bytes=100_000,
        targeted=False,
    ),
    Scenario(
        "answers-800k",
        "saturate",
        "non-streaming, 800 KB requests, as many as one core takes",
        EngineSpec(),
        LoadSpec(16),
        body_bytes=800_000,
        targeted=False,
    ),
    Scenario(
        "latency-answers",
        "added",
        "non-streaming, 200 requests/s, the engine answers after 20 ms",
        EngineSpec(first_token_ms=20),
        LoadSpec(64, rate_per_s=200),
    ),
    Scenario(
        "latency-streams",
        "added",
        "streaming, 200 requests/s, first token after 20 ms, then 20 chunks",
        EngineSpec(first_token_ms=20, chunk_ms=5, chunks=_LATENCY_CHUNKS),
        LoadSpec(128, stream=True, rate_per_s=200, expect_chunks=_LATENCY_CHUNKS),
    ),
    Scenario(
        "streams-paced",
        "paced",
        "200 streams, a chunk every 10 ms each, spread evenly",
        _PACED_ENGINE,
        _paced_load(200),
    ),
    Scenario(
        "streams-lockstep",
        "paced",
        "200 streams, a chunk every 10 ms, all at the same instant as in a batch",
        replace(_PACED_ENGINE, lockstep=True),
        _paced_load(200),
    ),
    Scenario(
        "streams-paced-400",
        "paced",
        "400 streams, a chunk every 10 ms each, spread evenly",
        _PACED_ENGINE,
        _paced_load(400),
        targeted=False,
    ),
    Scenario(
        "streams-flat-out",
        "saturate",
        "64 streams of 200 chunks, as fast as one core takes them",
        EngineSpec(chunks=200, chunks_per_write=10),
        LoadSpec(64, stream=True, expect_chunks=200),
        targeted=False,
    ),
    Scenario(
        "start-up", "start-up", "from the start of the process to the first 200 of /readyz", EngineSpec(), LoadSpec(0)
    ),
)


def select(names: list[str]) -> tuple[Scenario, ...]:
    """Return the scenarios with these names, all when there are none. Raises KeyError with the first unknown name."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    return tuple(by_name[name] for name in names) if names else SCENARIOS
