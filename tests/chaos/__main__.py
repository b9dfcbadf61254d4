"""`make chaos`: run one plan of faults, tell what happens, and fail with the evidence when something is amiss."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from tests.chaos.plan import CI, form_of
from tests.chaos.run import run

SEED = 1


def main() -> int:
    """Read the form from the command line and run it; 1 when anything was found."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=None, help="of load; default: CI's form, about two")
    parser.add_argument("--kills", type=int, default=None, help="of replicas, by SIGKILL; default: one in nine seconds")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the plan and the requests; default: {SEED}")
    options = parser.parse_args()
    form = CI
    if options.minutes is not None or options.kills is not None:
        minutes = options.minutes or CI.load_s / 60
        try:
            form = form_of(minutes, int(minutes * 60 / 9) if options.kills is None else options.kills)
        except ValueError as error:
            parser.error(str(error))
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    verdict = run(options.seed, form, console.print, f"seed-{options.seed}")
    return 1 if verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
