"""Why a figure may not mean what it seems to: what was busy while it was measured. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.figures import rate_of
from bench.runner import GATEWAY_CORE, OTHER_CORES
from bench.schedule import DIRECT, GATEWAY

if TYPE_CHECKING:
    from bench.runner import ScenarioResult

# A core this busy is full: requests that share commits and round trips come in bursts, with short gaps between them.
FULL_SHARE = 0.90
# The engine and the load client alone should reach several times the rate of what is measured between them.
HEADROOM_MIN = 3.0


def shares_of(result: ScenarioResult, target: str = GATEWAY) -> dict[str, float]:
    """Return the share of a core that each group of processes used in the runs of `target`, medians."""
    runs = result.runs.get(target, [])
    names = list(dict.fromkeys(name for run in runs for name in run.shares))
    return {name: median(run.shares.get(name, 0.0) for run in runs) for name in names}


def headroom(result: ScenarioResult, target: str = GATEWAY) -> float | None:
    """Return how many times the rate of `target` the engine and the load client reach alone; None when not measured."""
    rate = rate_of(result)
    rates = {name: median(rate(run) for run in runs) for name, runs in result.runs.items() if runs}
    return rates[DIRECT] / rates[target] if DIRECT in rates and rates.get(target) else None


def caveats_of(result: ScenarioResult, other_cores: int) -> list[str]:
    """Return what to know before a scenario's figures are believed, in sentences: nothing when all is well."""
    found = []
    for target in result.runs:
        shares = shares_of(result, target)
        if result.scenario.kind == "saturate" and target != DIRECT:
            found.append(_not_full(result, target, shares, other_cores) or _little_headroom(result, target))
        elif result.scenario.kind != "saturate" and shares.get(OTHER_CORES, 0.0) >= FULL_SHARE * other_cores:
            found.append(
                f"{result.scenario.name}, {target}: the other cores were full ({shares[OTHER_CORES]:.0%} of "
                f"{other_cores * 100}%), so its latencies include waiting for the engine and the load client"
            )
    return [sentence for sentence in found if sentence]


def _not_full(result: ScenarioResult, target: str, shares: dict[str, float], other_cores: int) -> str | None:
    """Say that the measured core was not what limited the rate, and what was busy instead.

    Also when the core was full but not by what was measured: its rate is too low then, while its CPU per request holds.
    """
    share = shares[target]
    if share >= FULL_SHARE:
        return None
    start = f"{result.scenario.name}: {_the(target)} was NOT the bottleneck, it used {share:.0%} of its core"
    if shares[GATEWAY_CORE] >= FULL_SHARE:
        return (
            f"{start} and other programs of this machine the rest: its rate is a lower bound, run this on a quiet one"
        )
    busy = {name: used for name, used in shares.items() if name not in {target, GATEWAY_CORE, OTHER_CORES}}
    busiest = ", ".join(f"{name} {used:.0%}" for name, used in sorted(busy.items(), key=lambda item: -item[1]))
    reason = (
        "they were full: its rate is a lower bound"
        if shares[OTHER_CORES] >= FULL_SHARE * other_cores
        else "they were not full either: something waits"
    )
    return f"{start}; {busiest}, the other cores {shares[OTHER_CORES]:.0%} of {other_cores * 100}%: {reason}"


def _little_headroom(result: ScenarioResult, target: str) -> str | None:
    """Say that engine and load client alone are not much faster than the gateway, although its core was full.

    nginx comes close to them: for it a full core has to do.
    """
    times = headroom(result, target)
    if target != GATEWAY or times is None or times >= HEADROOM_MIN:
        return None
    return (
        f"{result.scenario.name}: engine and load client alone reach only {times:.1f} times the rate of the gateway, "
        f"{HEADROOM_MIN:.0f} are wanted: trust its CPU time more than its rate"
    )


def _the(target: str) -> str:
    return "the gateway" if target == GATEWAY else target
