"""`python -m bench`: build the tools, start what is needed, run the scenarios, print and store the figures."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.console import Console

from bench.compare import print_comparison
from bench.control_plane import CONTROL_PLANE, control_plane_options, measure_control_plane
from bench.errors import BenchError
from bench.machine import busy_caveat, machine_facts
from bench.nginx import HOW_TO_INSTALL, find_nginx
from bench.options import COMPARE, compare_options, measure_options, stored_options
from bench.pinning import available_cores, pinned, split_cores
from bench.processes import alone
from bench.report import print_report
from bench.reports import REPORTS, measure_reports, report_options
from bench.runner import Runner
from bench.scenarios import select
from bench.schedule import DIRECT, GATEWAY, NGINX, SLOWER_MAX, SPARE_S, estimate_s, plan_of, time_limit
from bench.servers import running_stack
from bench.storage import Conditions, read_document, store
from bench.toolchain import BUILD_DIR, build_tools
from gateway.dev.errors import DevServerError
from gateway.dev.stop_signals import stop_signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bench.nginx import NginxProgram
    from bench.runner import ScenarioResult
    from bench.scenarios import Scenario

PLAIN_WIDTH = 120  # in a file or a log nothing needs to be folded to 80 columns
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Measure or compare; return 0, or 1 when that could not be done, or ledger or limits did not hold."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    try:
        if arguments[:1] == [COMPARE]:
            files = compare_options(arguments[1:])
            print_comparison(console, read_document(files.before), read_document(files.after))
            return 0
        if arguments[:1] == [REPORTS]:
            with stop_signals():
                return measure_reports(console, report_options(arguments[1:]))
        if arguments[:1] == [CONTROL_PLANE]:
            with stop_signals():
                return measure_control_plane(console, control_plane_options(arguments[1:]))
        options = measure_options(arguments)
        with stop_signals():
            return _measure(console, options)
    except (BenchError, DevServerError) as error:
        console.print("[bold red]error[/]", end=" ")
        console.print(str(error), highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: nothing is stored, nothing is left running", highlight=False)
        return INTERRUPTED


def _measure(console: Console, options: argparse.Namespace) -> int:
    scenarios = _scenarios(options)
    plan = plan_of(options.runs, options.seconds, quick=options.quick)
    cores = split_cores(available_cores(), options.gateway_core)
    nginx, no_nginx = _nginx(wanted=options.nginx)
    for caveat in (*cores.caveats(), busy_caveat(), no_nginx):
        if caveat:
            console.print(f"[yellow]caveat[/] {caveat}", highlight=False)
    tools = build_tools()
    targets = [DIRECT, *([NGINX] if nginx else []), *([] if options.direct_only else [GATEWAY])]
    expected_s = estimate_s(scenarios, plan, targets)
    console.print(
        f"scenarios: {len(scenarios)}, each run {plan.runs} time(s) {', '.join(targets)}; this takes about "
        f"{max(expected_s / 60, 1):.0f} min, Ctrl-C ends it and leaves nothing behind",
        highlight=False,
    )
    conditions = Conditions(
        machine_facts(),
        {**stored_options(options), "plan": asdict(plan)},
        cores,
        nginx.version if nginx else None,
        no_nginx,
    )
    results: list[ScenarioResult] = []
    failure: BenchError | None = None
    with ExitStack() as opened:
        opened.enter_context(alone(BUILD_DIR))
        opened.enter_context(time_limit(expected_s * SLOWER_MAX + SPARE_S))
        opened.enter_context(pinned(cores.others))
        stack = None
        if not options.direct_only:
            with console.status("starting PostgreSQL and Redis"):
                stack = opened.enter_context(
                    running_stack(BUILD_DIR / "servers", options.postgres_dsn, options.redis_url)
                )
            conditions = replace(conditions, machine={**conditions.machine, "servers": stack.versions})
        runner = Runner(tools, cores, plan, BUILD_DIR / "runs", nginx=nginx, stack=stack)
        try:
            _run_all(console, runner, scenarios, results)
        except BenchError as error:
            failure = error  # what was measured before it still holds, and took minutes
    conditions = replace(conditions, error=str(failure) if failure else None)
    return _finish(console, options, conditions, results, failure)


def _scenarios(options: argparse.Namespace) -> tuple[Scenario, ...]:
    try:
        chosen = select(options.scenario)
    except KeyError as unknown:
        raise BenchError(f"there is no scenario {unknown}; --help lists them") from None
    if options.direct_only:
        chosen = tuple(scenario for scenario in chosen if scenario.kind != "start-up")
    if not chosen:
        raise BenchError("the start-up scenario has nothing to measure without the gateway")
    return chosen


def _nginx(*, wanted: bool | None) -> tuple[NginxProgram | None, str | None]:
    """Return the nginx to measure, or why there is none. Raises BenchError when it was asked for and is missing."""
    if wanted is False:
        return None, "nginx is not measured: --no-nginx"
    found = find_nginx()
    if found is None:
        missing = f"nginx is not installed, so nothing stands beside the gateway: {HOW_TO_INSTALL}"
        if wanted:
            raise BenchError(missing)
        return None, missing
    return found, None


def _run_all(console: Console, runner: Runner, scenarios: tuple[Scenario, ...], results: list[ScenarioResult]) -> None:
    with console.status("") as status:
        for scenario in scenarios:
            results.append(runner.measure(scenario, status.update))
            console.print(f"{scenario.name}: {scenario.about}: done", highlight=False)


def _finish(
    console: Console,
    options: argparse.Namespace,
    conditions: Conditions,
    results: list[ScenarioResult],
    failure: BenchError | None,
) -> int:
    if results:
        print_report(console, conditions.machine, results, len(conditions.cores.others))
        path = store(options.results_dir, conditions, results)
        console.print(f"stored in {path}", highlight=False, soft_wrap=True)
    if failure:
        raise failure
    sound = all((result.ledger is None or result.ledger.exact) and result.limited_by_redis for result in results)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
