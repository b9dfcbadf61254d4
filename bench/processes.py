"""Child processes of a benchmark: stopped by handle, and never left behind, however the benchmark ends."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Self

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

STOP_GRACE_S = 20.0
TAIL_LINES_MAX = 15
PR_SET_PDEATHSIG = 1


def ends_with_this_process() -> Callable[[], None]:
    """Return a `preexec_fn` that lets the kernel send the child SIGTERM when this process ends, even by kill -9."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: the child should do no more than two system calls
    owner = os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != owner:  # it ended before the kernel was asked
            os._exit(1)

    return tie


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold `directory` for the length of the block. Raises BenchError when another benchmark does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel's: gone with this process
        except BlockingIOError as error:
            raise BenchError("another benchmark is running here: two at once would measure each other") from error
        yield


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
                preexec_fn=ends_with_this_process(),  # noqa: PLW1509 - two system calls, no lock that a thread holds
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
