"""How often and how long everything runs, and what that takes in all: it is told at the start, and bounds the run."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.pair import LoadTiming

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from bench.scenarios import Scenario

DIRECT, NGINX, GATEWAY = "direct", "nginx", "gateway"
SETTLE_S = 0.5  # all streams run for a while before measuring begins
STACK_S = 15.0  # PostgreSQL, Redis, a migrated database, a tenant
START_S = 2.5  # a gateway, and its end
SLOWER_MAX = 3.0
SPARE_S = 180.0  # on top of that, for compiling and for what a machine does at its worst


@dataclass(frozen=True, slots=True)
class Plan:
    """Runs of each scenario, starts of the gateway in the start-up scenario, and the seconds of each run by target."""

    runs: int
    starts: int
    direct: LoadTiming
    nginx: LoadTiming
    gateway: LoadTiming

    def timing(self, scenario: Scenario, target: str) -> LoadTiming:
        """Return the seconds of one run; the warm-up is long enough for all streams to be running."""
        timing = {DIRECT: self.direct, NGINX: self.nginx, GATEWAY: self.gateway}[target]
        return replace(timing, warmup_s=max(timing.warmup_s, scenario.load.ramp_s + SETTLE_S))


def plan_of(runs: int, seconds: float, *, quick: bool) -> Plan:
    """Return the plan for `runs` runs of `seconds` seconds, or for a smoke test when `quick` is set.

    Direct and nginx are steadier than the gateway and need less time. Raises BenchError when there is nothing to run.
    """
    if quick:
        short = LoadTiming(0.5, 1.0)
        return Plan(1, 2, short, short, LoadTiming(1.0, 2.0))
    if runs < 1 or not 0 < seconds <= 3600:
        raise BenchError("there must be at least one run, and more than 0 and at most 3600 seconds")
    shorter = LoadTiming(warmup_s=1.0, measure_s=min(seconds, 3.0))
    return Plan(runs, 2 * runs, shorter, shorter, LoadTiming(warmup_s=min(seconds, 2.0), measure_s=seconds))


def estimate_s(scenarios: Sequence[Scenario], plan: Plan, targets: Sequence[str]) -> float:
    """Return about how many seconds all of this takes, with what has to be started for it."""
    total_s = STACK_S if GATEWAY in targets else 0.0
    for scenario in scenarios:
        if scenario.kind == "start-up":
            total_s += plan.starts * START_S
            continue
        total_s += START_S if GATEWAY in targets else 0.0
        for target in targets:
            timing = plan.timing(scenario, target)
            total_s += plan.runs * (timing.warmup_s + timing.measure_s + scenario.stream_s)
    return total_s


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise BenchError in the block when it takes longer than this: nothing here may run for ever. Main thread only."""

    def expired(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise BenchError(f"not done after {seconds:.0f} s, several times what this should take: given up")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
