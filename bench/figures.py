"""From runs to figures: medians, ratios, what the gateway added, and whether targets are met. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal

from bench.schedule import DIRECT, GATEWAY, NGINX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.pair import Latency
    from bench.runner import Run, ScenarioResult, Start

CPU_US_PER_REQUEST_MAX = 250.0
REQUESTS_PER_S_MIN = 4_000.0
ADDED_MS_MAX = 1.0
STREAMS_SHARE_MAX = 0.80
# Streams that fall behind would make the share of a core look good.
DELIVERED_RATIO_MIN = 0.99

Better = Literal["more", "less"]
Values = dict[str, list[float]]  # of each run, by target


@dataclass(frozen=True, slots=True)
class Bound:
    """A target: at most (`less`) or at least (`more`) this value of the field `of`, which is a field of Figure."""

    of: Literal["gateway", "difference", "ratio"]
    better: Better
    value: float

    def met(self, value: float) -> bool:
        """Return whether `value` is within the bound."""
        return value <= self.value if self.better == "less" else value >= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: the median of the runs for each target that has it, in `unit`; `values` are all runs'."""

    scenario: str
    name: str
    unit: str
    direct: float | None
    nginx: float | None
    gateway: float | None
    bound: Bound | None = None
    values: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The gateway's value divided by the direct one."""
        return self.gateway / self.direct if self.gateway is not None and self.direct else None

    @property
    def difference(self) -> float | None:
        """What the gateway added to the direct value."""
        return self.gateway - self.direct if self.gateway is not None and self.direct is not None else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or without the gateway."""
        value: float | None = getattr(self, self.bound.of) if self.bound else None
        return self.bound.met(value) if self.bound and value is not None else None


def figures_of(result: ScenarioResult) -> list[Figure]:
    """Return the figures of a scenario, in the order in which they are read."""
    scenario = result.scenario
    if scenario.kind == "start-up":
        return _start_up(result)
    if scenario.kind == "added":
        return _added(result)
    if scenario.kind == "paced":
        return _paced(result)
    return _saturated_streams(result) if scenario.load.stream else _saturated_answers(result)


def _saturated_answers(result: ScenarioResult) -> list[Figure]:
    rate = Bound("gateway", "more", REQUESTS_PER_S_MIN)
    return [
        _figure(result, "throughput", "requests/s", _of_runs(result, requests_per_s), rate),
        _cpu(result, "CPU per request", requests_per_s, Bound("gateway", "less", CPU_US_PER_REQUEST_MAX)),
        *_latencies(result, "latency", lambda run: run.load.latency_us),
        *_memory(result),
    ]


def _saturated_streams(result: ScenarioResult) -> list[Figure]:
    return [
        _figure(result, "throughput", "chunks/s", _of_runs(result, chunks_per_s)),
        _cpu(result, "CPU per chunk", chunks_per_s),
        *_latencies(result, "chunk transit", lambda run: run.load.transit_us),
    ]


def _added(result: ScenarioResult) -> list[Figure]:
    bound = Bound("difference", "less", ADDED_MS_MAX)
    figures = []
    if result.scenario.load.stream:
        figures += _latencies(result, "first token", lambda run: run.load.first_content_us, bound)
        figures += _latencies(result, "chunk transit", lambda run: run.load.transit_us)
        figures += _latencies(result, "whole stream", lambda run: run.load.latency_us)
    else:
        figures += _latencies(result, "answer", lambda run: run.load.latency_us, bound)
    return [*figures, _share(result), _cpu(result, "CPU per request", requests_per_s)]


def _paced(result: ScenarioResult) -> list[Figure]:
    delivered = Bound("ratio", "more", DELIVERED_RATIO_MIN)
    return [
        _figure(result, "delivered", "chunks/s", _of_runs(result, chunks_per_s), delivered),
        _share(result, Bound("gateway", "less", STREAMS_SHARE_MAX * 100)),
        _cpu(result, "CPU per chunk", chunks_per_s),
        *_latencies(result, "chunk transit", lambda run: run.load.transit_us),
        *_memory(result),
    ]


def _start_up(result: ScenarioResult) -> list[Figure]:
    def of(value: Callable[[Start], float]) -> Values:
        return {GATEWAY: [value(start) for start in result.starts]}

    return [
        _figure(result, "time to ready", "s", of(lambda start: start.ready_s)),
        _figure(result, "CPU to ready", "s", of(lambda start: start.cpu_s)),
        _figure(result, "memory idle", "MB", of(lambda start: start.memory.resident_mb)),
    ]


def requests_per_s(run: Run) -> float:
    """Return the rate of answers of a run."""
    return run.load.requests_per_s


def chunks_per_s(run: Run) -> float:
    """Return the rate of content chunks of a run."""
    return run.load.chunks_per_s


def rate_of(result: ScenarioResult) -> Callable[[Run], float]:
    """Return what counts as the rate of a scenario: chunks of streams, else answers."""
    return chunks_per_s if result.scenario.load.stream else requests_per_s


def _figure(result: ScenarioResult, name: str, unit: str, values: Values, bound: Bound | None = None) -> Figure:
    """Return the medians of `values`. The bound falls away where the scenario is not held to the targets."""
    medians = {target: median(of_runs) for target, of_runs in values.items() if of_runs}
    return Figure(
        result.scenario.name,
        name,
        unit,
        medians.get(DIRECT),
        medians.get(NGINX),
        medians.get(GATEWAY),
        bound if result.scenario.targeted else None,
        values,
    )


def _of_runs(result: ScenarioResult, value: Callable[[Run], float | None]) -> Values:
    """Return the value of each run that has one, for each target where any has."""
    found = {target: [value(run) for run in runs] for target, runs in result.runs.items()}
    present = {target: [one for one in values if one is not None] for target, values in found.items()}
    return {target: values for target, values in present.items() if values}


def _latencies(
    result: ScenarioResult, name: str, value: Callable[[Run], Latency | None], bound: Bound | None = None
) -> list[Figure]:
    """Return p50 and p99 in milliseconds, of the runs that had samples; the bound is on p50."""

    def at(share: Literal["p50", "p99"]) -> Values:
        def of(run: Run) -> float | None:
            latency = value(run)
            return float(getattr(latency, share)) / 1000 if latency else None

        return _of_runs(result, of)

    return [_figure(result, f"{name} p50", "ms", at("p50"), bound), _figure(result, f"{name} p99", "ms", at("p99"))]


def _share(result: ScenarioResult, bound: Bound | None = None) -> Figure:
    values = {target: [run.shares[target] * 100 for run in runs] for target, runs in _in_front(result).items()}
    return _figure(result, "share of a core", "%", values, bound)


def _cpu(result: ScenarioResult, name: str, rate_per_s: Callable[[Run], float], bound: Bound | None = None) -> Figure:
    values = {
        target: [run.shares[target] * 1e6 / rate_per_s(run) for run in runs if rate_per_s(run)]
        for target, runs in _in_front(result).items()
    }
    return _figure(result, name, "µs", values, bound)


def _memory(result: ScenarioResult) -> list[Figure]:
    """Return the resident memory before any load, and the highest until the end of each run."""
    idle = {target: [memory.resident_mb] for target, memory in result.idle.items()}
    peak = _of_runs(result, lambda run: run.memory.peak_mb if run.memory else None)
    return [_figure(result, "memory idle", "MB", idle), _figure(result, "memory peak", "MB", peak)]


def _in_front(result: ScenarioResult) -> Mapping[str, list[Run]]:
    """Return the runs with something in front of the engine; a group of processes has its name."""
    return {target: runs for target, runs in result.runs.items() if target != DIRECT}
