"""From runs to figures: medians, ratios, what the gateway added, and whether its core was what limited it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from bench.runner import DIRECT, GATEWAY, GATEWAY_CORE, NGINX, OTHER_CORES, Run, ScenarioResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.pair import Latency

# A core this busy is full: requests that share commits and round trips come in bursts, with short gaps between them.
FULL_SHARE = 0.90
CPU_US_PER_REQUEST_MAX = 250.0
REQUESTS_PER_S_MIN = 4_000.0
ADDED_MS_MAX = 1.0
STREAMS_SHARE_MAX = 0.80
# Streams that fall behind would make the share of a core look good.
DELIVERED_RATIO_MIN = 0.99

Better = Literal["more", "less"]


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
    """One measured quantity: the median of the runs for each target that has it, in `unit`."""

    scenario: str
    name: str
    unit: str
    direct: float | None
    nginx: float | None
    gateway: float | None
    bound: Bound | None = None

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
    if scenario.kind == "added":
        return _added(result)
    if scenario.kind == "paced":
        return _paced(result)
    return _saturated_streams(result) if scenario.load.stream else _saturated_answers(result)


def _saturated_answers(result: ScenarioResult) -> list[Figure]:
    small = result.scenario.body_bytes <= 2_000
    rate = Bound("gateway", "more", REQUESTS_PER_S_MIN) if small else None
    cpu = Bound("gateway", "less", CPU_US_PER_REQUEST_MAX) if small else None
    return [
        _figure(result, "throughput", "requests/s", lambda run: run.load.requests_per_s, rate),
        _cpu(result, "CPU per request", lambda run: run.load.requests_per_s, cpu),
        *_latencies(result, "latency", lambda run: run.load.latency_us),
    ]


def _saturated_streams(result: ScenarioResult) -> list[Figure]:
    return [
        _figure(result, "throughput", "chunks/s", lambda run: run.load.chunks_per_s),
        _cpu(result, "CPU per chunk", lambda run: run.load.chunks_per_s),
        *_latencies(result, "chunk transit", lambda run: run.load.transit_us),
    ]


def _added(result: ScenarioResult) -> list[Figure]:
    bound = Bound("difference", "less", ADDED_MS_MAX)
    figures = []
    if result.scenario.load.stream:
        figures += _latencies(result, "first token", lambda run: run.load.first_content_us, bound)
        figures += _latencies(result, "whole stream", lambda run: run.load.latency_us)
    else:
        figures += _latencies(result, "answer", lambda run: run.load.latency_us, bound)
    figures.append(_share(result))
    return figures


def _paced(result: ScenarioResult) -> list[Figure]:
    delivered = Bound("ratio", "more", DELIVERED_RATIO_MIN)
    return [
        _figure(result, "delivered", "chunks/s", lambda run: run.load.chunks_per_s, delivered),
        _share(result, Bound("gateway", "less", STREAMS_SHARE_MAX * 100)),
        *_latencies(result, "chunk transit", lambda run: run.load.transit_us),
    ]


def _figure(
    result: ScenarioResult, name: str, unit: str, value: Callable[[Run], float], bound: Bound | None = None
) -> Figure:
    medians = {target: median(value(run) for run in runs) for target, runs in result.runs.items()}
    return Figure(
        result.scenario.name, name, unit, medians.get(DIRECT), medians.get(NGINX), medians.get(GATEWAY), bound
    )


def _latencies(
    result: ScenarioResult, name: str, value: Callable[[Run], Latency | None], bound: Bound | None = None
) -> list[Figure]:
    """Return p50 and p99 in milliseconds; the bound is on p50."""

    def at(share: Literal["p50", "p99"]) -> Callable[[Run], float]:
        return lambda run: float(getattr(value(run), share, 0.0)) / 1000

    return [
        _figure(result, f"{name} p50", "ms", at("p50"), bound),
        _figure(result, f"{name} p99", "ms", at("p99")),
    ]


def _proxy_share(result: ScenarioResult, target: str) -> float | None:
    return median(run.shares[target] for run in result.runs[target]) if target in result.runs else None


def _share(result: ScenarioResult, bound: Bound | None = None) -> Figure:
    nginx, gateway = (
        None if share is None else share * 100 for share in (_proxy_share(result, NGINX), gateway_share(result))
    )
    return Figure(result.scenario.name, "share of a core", "%", None, nginx, gateway, bound)


def _cpu(result: ScenarioResult, name: str, rate_per_s: Callable[[Run], float], bound: Bound | None = None) -> Figure:
    def cpu_us(target: str) -> float | None:
        runs: Sequence[Run] = result.runs.get(target, [])
        spent = [run.shares[target] * 1e6 / rate_per_s(run) for run in runs if rate_per_s(run)]
        return median(spent) if spent else None

    return Figure(result.scenario.name, name, "µs", None, cpu_us(NGINX), cpu_us(GATEWAY), bound)


def gateway_share(result: ScenarioResult) -> float | None:
    """Return the share of its core that the gateway used, the median of the runs; None when it was not measured."""
    return _proxy_share(result, GATEWAY)


def shares_of(result: ScenarioResult) -> dict[str, float]:
    """Return the share of a core that each group of processes used in the runs through the gateway, medians."""
    runs = result.runs.get(GATEWAY, [])
    names = list(dict.fromkeys(name for run in runs for name in run.shares))
    return {name: median(run.shares.get(name, 0.0) for run in runs) for name in names}


def warning_of(result: ScenarioResult, other_cores: int) -> str | None:
    """Say that the gateway's core was not what limited a saturating scenario, and what was busy instead; else None.

    Also when the core was full but not by the gateway: then its rate is too low, while its CPU per request still holds.
    """
    share, shares = gateway_share(result), shares_of(result)
    if result.scenario.kind != "saturate" or share is None or share >= FULL_SHARE:
        return None
    start = f"{result.scenario.name}: the gateway was NOT the bottleneck, it used {share:.0%} of its core"
    if shares[GATEWAY_CORE] >= FULL_SHARE:
        return (
            f"{start} and other programs of this machine the rest: its rate is a lower bound, run this on a quiet one"
        )
    busy = {name: used for name, used in shares.items() if name not in {GATEWAY, GATEWAY_CORE, OTHER_CORES}}
    busiest = ", ".join(f"{name} {used:.0%}" for name, used in sorted(busy.items(), key=lambda item: -item[1]))
    reason = (
        "they were full: its rate is a lower bound"
        if shares[OTHER_CORES] >= FULL_SHARE * other_cores
        else "they were not full either: something waits"
    )
    return f"{start}; {busiest}, the other cores {shares[OTHER_CORES]:.0%} of {other_cores * 100}%: {reason}"
