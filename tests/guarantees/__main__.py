"""`make guarantees`: run what measures promises, and write docs/guarantees.md from what it measured."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.guarantees.page import PAGE, rendered, worst
from tests.guarantees.promises import CHAOS, PROMISES, SOAK
from tests.support.guarantees import RESULTS_VARIABLE
from tests.support.source import REPOSITORY


def main() -> int:
    """Run the tests, chaos and soak in the forms that the command line gives; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="make guarantees", description=__doc__)
    parser.add_argument("--chaos", default="", help='options of `make chaos`, such as "--minutes 30 --kills 200"')
    parser.add_argument("--soak", default="", help='options of `make soak`, such as "--minutes 30"')
    options = parser.parse_args()
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    tests = sorted({promise.test for promise in PROMISES.values()} - {CHAOS, SOAK})
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        failed = [
            " ".join(command)
            for command in (
                ["pytest", "-q", "-p", "no:cacheprovider", *tests],
                ["tests.chaos", *options.chaos.split()],
                ["tests.chaos.soak", *options.soak.split()],
            )
            if _run(command, results)
        ]
        found = worst(results.read_text(encoding="utf-8").splitlines())
    missing = [name for name in PROMISES if name not in found]
    if failed or missing:
        console.print("\n".join([f"failed: {command}" for command in failed]))
        console.print("\n".join([f"not measured: {name}" for name in missing]))
        return 1
    PAGE.write_text(rendered(found, f"{os.cpu_count()} cores"), encoding="utf-8")
    console.print(f"wrote {PAGE}")
    return 0


def _run(command: list[str], results: Path) -> int:
    environment = os.environ | {RESULTS_VARIABLE: str(results)}
    return subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
