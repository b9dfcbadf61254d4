"""Compiles the bench engine and the load client, when their sources are newer than what was built last."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

HERE = Path(__file__).parent
BUILD_DIR = HERE / "build"
FLAGS = ("-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra")
COMPILE_S_MAX = 120.0
COMPILERS = ("cc", "gcc", "clang")
HOW_TO_INSTALL = (
    "apt-get install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora), apk add gcc musl-dev (Alpine)"
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The two compiled programs."""

    engine: Path
    load: Path


def build_tools(build_dir: Path = BUILD_DIR) -> Tools:
    """Compile what is out of date and return the programs. Raises BenchError without a compiler, or with its words."""
    build_dir.mkdir(parents=True, exist_ok=True)
    return Tools(*(_build(HERE / f"{name}.c", build_dir / name) for name in ("engine", "load")))


def find_compiler() -> str | None:
    """Return the path of the C compiler that is used; None when there is none."""
    return next((found for found in map(shutil.which, COMPILERS) if found), None)


def _build(source: Path, program: Path) -> Path:
    newest_s = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest_s:
        return program
    compiler = find_compiler()
    if compiler is None:
        raise BenchError(
            f"the benchmarks need a C compiler ({', '.join(COMPILERS)}) on the PATH, "
            f"for the engine and the load client: {HOW_TO_INSTALL}"
        )
    # Built aside and renamed: two runs at once never execute half a program.
    part = program.with_name(f"{program.name}.{os.getpid()}.part")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", str(part), str(source), "-lm"],
        capture_output=True,
        text=True,
        timeout=COMPILE_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{compiler} refused {source.name}:\n{done.stderr}")
    part.replace(program)
    return program
