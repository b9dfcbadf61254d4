"""Runs the real `penstock` command as a process, in a folder and an environment of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent.parent
COMMAND_S_MAX = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output of a command that succeeded and said nothing else."""
        assert (self.code, self.err) == (0, ""), self
        return json.loads(self.out)


@dataclass(frozen=True)
class Penstock:
    """`penstock` in `folder`, with `variables` set and no other PENSTOCK_ variable; nobody is logged in anywhere."""

    folder: Path
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the command runs in."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        own = {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "NO_COLOR": "1"}
        return inherited | own | {"XDG_CONFIG_HOME": str(self.folder / "config")} | self.variables

    def __call__(self, *arguments: str, stdin: str = "") -> Outcome:
        """Run the command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
            encoding="utf-8",
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def imported(self, modules: frozenset[str], *arguments: str) -> str:
        """Run the command and return its exit code and which of these modules it has loaded: `0 ['redis']`."""
        program = (
            f"import sys; from gateway.cli.run import run; code = run({list(arguments)!r});"
            f"print(code, sorted({set(modules)!r} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            timeout=COMMAND_S_MAX,
            check=True,
        )
        return done.stdout.splitlines()[-1]
