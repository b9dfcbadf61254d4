"""What the figures were measured on: without it they cannot be compared with anything."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

from bench.toolchain import find_compiler

PACKAGES = ("penstock", "uvloop", "uvicorn", "httptools", "msgspec", "asyncpg", "redis", "hiredis")
COMMAND_S_MAX = 10.0
QUIET_LOAD_MAX = 0.5


def machine_facts() -> dict[str, object]:
    """Return the machine, the kernel, the versions that matter, and the commit, as JSON-ready values."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_available": sorted(os.sched_getaffinity(0)),
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "compiler": _first_line(find_compiler() or "cc", "--version"),
        "commit": _first_line("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "load_average_before": os.getloadavg()[0],
    }


def busy_caveat() -> str | None:
    """Say that other programs have been running during the last minute; None on a quiet machine."""
    load = os.getloadavg()[0]
    if load <= QUIET_LOAD_MAX:
        return None
    return f"this machine is not idle (load average {load:.1f}): what else runs takes time from what is measured"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(*argv: str) -> str | None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None
