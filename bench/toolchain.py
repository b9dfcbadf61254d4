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


@dataclass(frozen=True, slots=True)
class Tools:
    """The two compiled programs."""

    engine: Path
    load: Path


def build_tools(build_dir: Path = BUILD_DIR) -> Tools:
    """Compile what is out of date and return the programs. Raises BenchError without a compiler, or with its words."""
    build_dir.mkdir(parents=True, exist_ok=True)
    return Tools(*(_build(HERE / f"{name}.c", build_dir / name) for name in ("engine", "load")))


def _build(source: Path, program: Path) -> Path:
    newest_s = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest_s:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("the benchmarks need a C compiler (cc, gcc or clang) on the PATH")
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
