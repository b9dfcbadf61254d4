"""What processes used, as the kernel accounts for it: CPU time in nanoseconds, memory, and how long cores were busy."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BYTES_PER_KB = 1024  # as /proc counts; MB are 10^6 bytes


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU seconds used so far by each group of processes or cores, and when (monotonic clock, seconds)."""

    at_s: float
    used_s: Mapping[str, float]

    def used_until(self, later: CpuSample) -> dict[str, float]:
        """Return the CPU seconds that each group used between two samples."""
        return {name: max(later.used_s[name] - used_s, 0.0) for name, used_s in self.used_s.items()}

    def shares_until(self, later: CpuSample) -> dict[str, float]:
        """Return the share of one core that each group used between two samples: 1.0 is a core kept busy."""
        elapsed_s = later.at_s - self.at_s
        return {name: used_s / elapsed_s for name, used_s in self.used_until(later).items()}


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process and its descendants, now and at its highest so far, in megabytes (10^6 bytes).

    Pages that several of the processes share count once for each.
    """

    resident_mb: float
    peak_mb: float


def sample_cpu(groups: Mapping[str, Sequence[int]], cores: Mapping[str, frozenset[int]]) -> CpuSample:
    """Read the CPU time of the processes (with their descendants) of each group, and how long cores were busy.

    A process that has ended counts for nothing from then on, so groups should live through the measured window. The
    first group is read closest to the sample's time. A core is busy for whoever: what its processes do not account
    for, other programs or the virtual machine's host took.
    """
    at_s = time.monotonic()
    used_s = {name: sum(_tree_cpu_ns(pid) for pid in pids) / 1e9 for name, pids in groups.items()}
    for name, members in cores.items():
        used_s[name] = sum(at_s - _idle_s(core) for core in members)
    return CpuSample(at_s, used_s)


def cpu_ns(pid: int) -> int:
    """Return the CPU time that a process has used: user and system, all threads, also those that have ended.

    It is the scheduler's own count (POSIX's clock_getcpuclockid), in nanoseconds; /proc/PID/stat has it in ticks of
    usually 10 ms. Raises OSError when there is no such process.
    """
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return time.clock_gettime_ns(clock.value)


def memory_of(pid: int) -> Memory:
    """Return the memory of a process and its descendants; zero when it has ended."""
    kilobytes = [_memory_kb(member) for member in _tree(pid)]
    resident_kb, peak_kb = (sum(column) for column in zip((0, 0), *kilobytes, strict=True))
    return Memory(resident_kb * BYTES_PER_KB / 1e6, peak_kb * BYTES_PER_KB / 1e6)


def _memory_kb(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines)
    resident, peak = (fields.get(name, "0 kB").split()[0] for name in ("VmRSS", "VmHWM"))
    return int(resident), int(peak)


def _tree(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def _tree_cpu_ns(pid: int) -> int:
    total_ns = 0
    with suppress(OSError):
        total_ns = cpu_ns(pid)  # before the descendants are looked for, which takes milliseconds
    for member in _tree(pid)[1:]:
        with suppress(OSError):
            total_ns += cpu_ns(member)
    return total_ns


def _idle_s(core: int) -> float:
    """Read idle time, which the kernel measures; busy time it may only sample at its clock ticks."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.idle + times.iowait)
