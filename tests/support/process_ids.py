"""Which processes run, as the kernel sees it: for tests of who ends with whom."""

from __future__ import annotations

import psutil


def running(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Return all processes that descend from `pid` now."""
    return psutil.Process(pid).children(recursive=True)


def left_after(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Return those that still run after at most `timeout_s` seconds; psutil notices numbers that were given away."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
