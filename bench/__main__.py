"""`python -m bench`: build the tools, start what is needed, run the scenarios, print and store the figures."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.errors import BenchError
from bench.machine import machine_facts
from bench.pair import LoadTiming
from bench.pinning import available_cores, pinned, split_cores
from bench.report import print_report, store
from bench.runner import Plan, Runner, ScenarioResult
from bench.scenarios import SCENARIOS, Scenario, select
from bench.servers import running_stack
from bench.toolchain import BUILD_DIR, HERE, build_tools
from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from bench.pinning import Cores

PLAIN_WIDTH = 120  # in a file or a log nothing needs to be folded to 80 columns
RESULTS_DIR = HERE / "results"
CORES_WITHOUT_CAVEAT = 4
# Addresses hold passwords, a path says nothing about the figures.
NOT_STORED = frozenset({"postgres_dsn", "redis_url", "results_dir"})


def main() -> int:
    """Run the benchmarks; return 0, or 1 when they could not run, or ledger or limits did not hold."""
    options = _parser().parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    try:
        return _run(console, options)
    except (BenchError, DevServerError) as error:
        console.print(f"[bold red]error[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway on one core.")
    parser.add_argument("--scenario", action="append", default=[], help=f"run only this one; may be repeated: {names}")
    parser.add_argument("--quick", action="store_true", help="one short run of each: a smoke test, not a measurement")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, whose median is reported (default: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured seconds of each run (default: 5)")
    parser.add_argument("--gateway-core", type=int, help="the gateway's core (default: the lowest available)")
    parser.add_argument("--direct-only", action="store_true", help="no gateway: what engine and load client can do")
    parser.add_argument(
        "--nginx", action="store_true", help="also measure nginx as a plain proxy; it must be installed"
    )
    parser.add_argument("--postgres-dsn", help="use this server (a database is made and dropped) and start none")
    parser.add_argument("--redis-url", help="use this server and start none")
    parser.add_argument("--results-dir", type=Path, default=RESULTS_DIR, help="where the JSON goes")
    return parser


def _run(console: Console, options: argparse.Namespace) -> int:
    try:
        scenarios = select(options.scenario)
    except KeyError as unknown:
        raise BenchError(f"there is no scenario {unknown}") from None
    cores = split_cores(available_cores(), options.gateway_core)
    if len(cores.others) + 1 < CORES_WITHOUT_CAVEAT:
        console.print(
            f"[yellow]caveat[/] engine, load client, Postgres and Redis share {len(cores.others)} core(s): latencies "
            "of saturating scenarios include their waiting for each other"
        )
    facts = machine_facts()
    tools = build_tools()
    with ExitStack() as opened:
        opened.enter_context(pinned(cores.others))
        stack = None
        if not options.direct_only:
            with console.status("starting Postgres and Redis"):
                stack = opened.enter_context(
                    running_stack(BUILD_DIR / "servers", options.postgres_dsn, options.redis_url)
                )
        runner = Runner(tools, cores, _plan(options), BUILD_DIR / "runs", stack)
        results = _measure(console, runner, scenarios)
    print_report(console, facts, results, len(cores.others))
    shown = {name: value for name, value in vars(options).items() if name not in NOT_STORED}
    path = store(options.results_dir, facts, {**shown, **_cores_json(cores)}, results)
    console.print(f"stored in {path}", highlight=False, soft_wrap=True)
    sound = all((result.ledger is None or result.ledger.exact) and result.limited_by_redis for result in results)
    return 0 if sound else 1


def _measure(console: Console, runner: Runner, scenarios: tuple[Scenario, ...]) -> list[ScenarioResult]:
    results = []
    with console.status("") as status:
        for scenario in scenarios:
            results.append(runner.measure(scenario, status.update))
            console.print(f"{scenario.name}: {scenario.about}: done", highlight=False)
    return results


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        return Plan(1, LoadTiming(0.5, 1.0), LoadTiming(1.0, 2.0), options.nginx)
    direct = LoadTiming(warmup_s=1.0, measure_s=min(options.seconds, 3.0))
    return Plan(options.runs, direct, LoadTiming(warmup_s=2.0, measure_s=options.seconds), options.nginx)


def _cores_json(cores: Cores) -> dict[str, list[int]]:
    return {"gateway_cores": sorted(cores.gateway), "other_cores": sorted(cores.others)}


if __name__ == "__main__":
    sys.exit(main())
