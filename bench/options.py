"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.scenarios import SCENARIOS
from bench.toolchain import HERE

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS_DIR = HERE / "results"
COMPARE = "compare"
# Addresses hold passwords, a path says nothing about the figures.
NOT_STORED = frozenset({"postgres_dsn", "redis_url", "results_dir"})


def measure_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a measurement."""
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the gateway on one core.",
        epilog="python -m bench compare A.json B.json shows what has changed between two stored measurements;"
        " python -m bench reports measures usage reports, python -m bench control-plane the control plane.",
    )
    parser.add_argument("--scenario", action="append", default=[], help=f"run only this one; may be repeated: {names}")
    parser.add_argument("--quick", action="store_true", help="one short run of each: a smoke test, not a measurement")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, whose median is reported (default: 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured seconds of each run (default: 4)")
    parser.add_argument("--gateway-core", type=int, help="the gateway's core (default: the lowest available)")
    parser.add_argument("--direct-only", action="store_true", help="no gateway: what engine and load client can do")
    parser.add_argument(
        "--nginx",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure nginx as a plain proxy, too; it must be there, or must not (default: when it is installed)",
    )
    parser.add_argument("--postgres-dsn", help="use this server (a database is made and dropped) and start none")
    parser.add_argument("--redis-url", help="use this server and start none")
    parser.add_argument("--results-dir", type=Path, default=RESULTS_DIR, help="where the JSON goes")
    return parser.parse_args(arguments)


def compare_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a comparison: the paths `before` and `after`."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {COMPARE}", description="Compare two measurements.")
    parser.add_argument("before", type=Path, help="the JSON file of the first measurement")
    parser.add_argument("after", type=Path, help="the JSON file of the second")
    return parser.parse_args(arguments)


def stored_options(options: argparse.Namespace) -> dict[str, object]:
    """Return the options that say something about the figures, as JSON-ready values."""
    return {name: value for name, value in vars(options).items() if name not in NOT_STORED}
