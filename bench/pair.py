"""Runs the two C programs: the engine as a background process, the load client to its end.

What they print is JSON; here it becomes typed values, and a run that did not get correct answers becomes an error.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.processes import Background, ends_with_this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.toolchain import Tools

LOAD_MARGIN_S = 60.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How the engine answers. `chunk_ms` 0: as fast as the socket takes them; `lockstep`: all streams on one grid.

    `chunks_per_write` above 1 saves the engine system calls, its main cost, where it must be far faster than a gateway.
    """

    first_token_ms: float = 0.0
    chunk_ms: float = 0.0
    chunks: int = 100
    lockstep: bool = False
    chunks_per_write: int = 1

    def arguments(self) -> list[str]:
        """Return the command line of this engine, without the program."""
        numbers = [
            f"--first-token-ms={self.first_token_ms}",
            f"--chunk-ms={self.chunk_ms}",
            f"--chunks={self.chunks}",
            f"--chunks-per-write={self.chunks_per_write}",
        ]
        return [*numbers, "--lockstep"] if self.lockstep else numbers


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """What an engine did in its life: requests read, answered in full, and hung up on; tokens of the answered ones."""

    requests: int
    finished: int
    hangups: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    port: int
    process: Background

    def stop(self) -> EngineCounters:
        """Stop the engine and return its counters. Raises BenchError when it did not leave any."""
        self.process.stop()
        lines = self.process.output.read().splitlines()
        if not lines:
            raise BenchError(f"the engine left no counters:\n{self.process.tail()}")
        counters = json.loads(lines[-1])
        return EngineCounters(**{name: int(counters[name]) for name in EngineCounters.__slots__})


@contextmanager
def running_engine(tools: Tools, spec: EngineSpec, log: Path, model: str = "bench") -> Iterator[Engine]:
    """Run an engine on a free port of the loopback address; raise BenchError when it does not start."""
    argv = [str(tools.engine), "--port=0", f"--model={model}", *spec.arguments()]
    with Background(argv, log, pipe=True) as process:
        line = process.output.readline()
        if not line:
            process.check_running()
            raise BenchError(f"the engine closed its output:\n{process.tail()}")
        yield Engine(int(json.loads(line)["port"]), process)


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What the load client does. `rate_per_s` 0: closed loop; else requests are due at that rate, come what may.

    In a closed loop the connections start one after the other over `ramp_s` seconds. `expect_chunks` 0: any number.
    """

    connections: int
    stream: bool = False
    rate_per_s: float = 0.0
    ramp_s: float = 0.0
    expect_chunks: int = 0

    def arguments(self) -> list[str]:
        """Return the command line that stands for this, without the program."""
        numbers = [
            f"--connections={self.connections}",
            f"--rate={self.rate_per_s}",
            f"--ramp-s={self.ramp_s}",
            f"--expect-chunks={self.expect_chunks}",
        ]
        return [*numbers, "--stream"] if self.stream else numbers


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution, in microseconds."""

    samples: int
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a run got. `answered` counts the whole run with its warm-up; everything else is of the measured window."""

    seconds: float
    answered: int
    requests: int
    requests_per_s: float
    chunks: int
    chunks_per_s: float
    errors: int
    reconnects: int
    unanswered: int
    cpu_s: float
    first_error: str | None
    latency_us: Latency | None
    first_byte_us: Latency | None
    first_content_us: Latency | None
    transit_us: Latency | None


def parse_result(text: str) -> LoadResult:
    """Read what the load client printed. Raises BenchError when it is not a result."""
    try:
        raw: dict[str, Any] = json.loads(text)
        values = {name: raw[name] for name in LoadResult.__slots__}
        for name in ("latency_us", "first_byte_us", "first_content_us", "transit_us"):
            values[name] = Latency(**raw[name]) if raw[name] else None
        return LoadResult(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"the load client printed no result: {text[:200]!r}") from error


@dataclass(frozen=True, slots=True)
class LoadTiming:
    """Seconds of warm-up, of measuring, and at most of waiting for what is in flight at the end."""

    warmup_s: float
    measure_s: float
    drain_s: float = 30.0

    def arguments(self) -> list[str]:
        """Return the command line that stands for this."""
        return [f"--warmup-s={self.warmup_s}", f"--seconds={self.measure_s}", f"--drain-s={self.drain_s}"]


def run_load(
    tools: Tools,
    port: int,
    request: Path,
    spec: LoadSpec,
    timing: LoadTiming,
    on_mark: Callable[[str], None] = lambda _: None,
) -> LoadResult:
    """Run the load client to its end; `on_mark` is called with "begin" and "end" as the measured window opens and ends.

    Raises BenchError when it cannot run, or when any answer was wrong or missing: figures with errors in them are none.
    """
    argv = [str(tools.load), f"--port={port}", f"--request={request}", *spec.arguments(), *timing.arguments()]
    said: list[str] = []
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=ends_with_this_process(),  # noqa: PLW1509 - two system calls, no lock that a thread holds
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line.strip())
                on_mark(said[-1])
            text = process.stdout.read()
            process.wait(LOAD_MARGIN_S)
        finally:
            process.kill()
    if not text:
        raise BenchError(f"the load client failed: {' '.join(said)}")
    result = parse_result(text)
    if result.errors or result.unanswered:
        raise BenchError(
            f"{result.errors} wrong answers and {result.unanswered} missing ones beside {result.answered} good ones; "
            f"the first error: {result.first_error}"
        )
    return result
