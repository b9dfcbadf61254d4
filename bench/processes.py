"""Child processes of a benchmark, stopped by handle, and the CPU time that groups of processes used."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

import psutil

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

STOP_GRACE_S = 20.0
TAIL_LINES_MAX = 15


class Background:
    """A child process whose output goes to a new log file (stdout to a pipe when `pipe` is set). Leaving stops it."""

    def __init__(
        self, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, pipe: bool = False
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:  # a line a request adds up: only the latest run's are kept
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for the runner, which stops its children in order
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self._process.stdout:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> IO[str]:
        """The child's stdout; only with `pipe`."""
        assert self._process.stdout is not None
        return self._process.stdout

    def check_running(self) -> None:
        """Raise BenchError, with the end of the log, when the child has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self.log.stem} ended with exit code {self._process.returncode}:\n{self.tail()}")

    def stop(self) -> int:
        """End the child with SIGTERM, after `STOP_GRACE_S` with SIGKILL; return its exit code. May be repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def tail(self) -> str:
        """Return the last lines of the child's log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES_MAX:])


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU seconds used so far by each group of processes or cores, and when (monotonic clock, seconds)."""

    at_s: float
    used_s: Mapping[str, float]

    def shares_until(self, later: CpuSample) -> dict[str, float]:
        """Return the share of one core that each group used between two samples: 1.0 is a core kept busy."""
        elapsed_s = later.at_s - self.at_s
        return {name: max(later.used_s[name] - used_s, 0.0) / elapsed_s for name, used_s in self.used_s.items()}


def sample_cpu(groups: Mapping[str, Sequence[int]], cores: Mapping[str, frozenset[int]]) -> CpuSample:
    """Read user and system time of the processes (with their descendants) of each group, and how long cores were busy.

    A process that has ended counts for nothing from then on, so groups should live through the measured window. A core
    is busy for whoever: what its processes do not account for, other programs or the virtual machine's host took.
    """
    at_s = time.monotonic()
    used_s = {name: sum(_tree_cpu_s(pid) for pid in pids) for name, pids in groups.items()}
    for name, members in cores.items():
        used_s[name] = sum(at_s - _idle_s(core) for core in members)
    return CpuSample(at_s, used_s)


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process, in megabytes (10^6 bytes)."""
    return psutil.Process(pid).memory_info().rss / 1e6


def _tree_cpu_s(pid: int) -> float:
    total_s = 0.0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total_s += times.user + times.system
    return total_s


def _idle_s(core: int) -> float:
    """Read idle time, which the kernel measures; busy time it may only sample at its clock ticks."""
    times = psutil.cpu_times(percpu=True)[core]
    return float(times.idle + times.iowait)
