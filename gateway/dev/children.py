"""Child processes of the development environment: started under a guard, watched, stopped by handle.

Each child belongs to the process that started it and cannot outlive it (see `gateway.dev.guard` for how). Its output
goes to a log file of its own, whose last lines tell why it ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from gateway.dev.accounts import Account

GUARD = Path(__file__).with_name("guard.py")
LOG_BYTES_MAX = 10 * 1024 * 1024
TAIL_BYTES_MAX = 64 * 1024
GUARD_START_S_MAX = 20.0
GUARD_MARGIN_S = 5.0
READY_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `argv[0]` is an absolute path; `environment` is added to the own one; `stop_grace_s` in seconds."""

    name: str
    argv: tuple[str, ...]
    log: Path
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0


class Child:
    """One running child process and the pipe its life hangs on.

    `depends_on` names children that must outlive this one: they are stopped only after it has ended, even when the
    owner is killed. A context manager: leaving it stops the child.
    """

    def __init__(self, spec: ChildSpec, depends_on: Sequence[Child] = ()) -> None:
        """Start the child. Raises DevServerError when its guard cannot start it."""
        self.spec = spec
        self.pid = 0
        self.exit_code: int | None = None
        _rotate(spec.log)
        reading, self._lifeline = os.pipe()
        hold_open = [child._lifeline for child in depends_on if child._lifeline >= 0]
        try:
            with os.fdopen(os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
                self._guard = subprocess.Popen(  # noqa: S603  # our own program; what it runs is our own choice too
                    [sys.executable, "-I", str(GUARD), spec.name],
                    stdin=reading,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    pass_fds=hold_open,
                    start_new_session=True,  # Ctrl-C in a terminal is for the owner, which stops children in order
                )
        finally:
            os.close(reading)
        assert self._guard.stdout is not None
        self._status = self._guard.stdout
        self._unread = b""
        self._process: psutil.Process | None = None
        os.set_blocking(self._status.fileno(), False)
        self._start(hold_open)

    def __repr__(self) -> str:
        return f"<Child {self.spec.name} pid={self.pid} exit_code={self.exit_code}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the child ends, for `select`; closed once that was seen."""
        return self._status.fileno()

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), or None while the child runs. Does not wait."""
        while self.exit_code is None:
            try:
                chunk = os.read(self.fileno(), 4096)
            except BlockingIOError:
                break
            if not chunk:
                self._guard_lost()
                break
            self._unread += chunk
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                word, _, number = line.partition(b" ")
                if word == b"pid":
                    self.pid = int(number)
                    with suppress(psutil.NoSuchProcess):
                        self._process = psutil.Process(self.pid)
                elif word == b"exit":
                    self._ended(int(number))
        return self.exit_code

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code, or None when the child still runs after `timeout_s` seconds."""
        deadline_s = time.monotonic() + timeout_s
        while self.poll() is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            select.select([self], [], [], left_s)
        return self.exit_code

    def stop(self) -> int | None:
        """Stop the child with its own signal, after its grace with SIGKILL; return the exit code. May be repeated."""
        if self.poll() is None:
            self._guard.terminate()  # not only the pipe: a dependant's guard may still hold that open
            self._close_lifeline()
            if self.wait(self.spec.stop_grace_s + GUARD_MARGIN_S) is None:
                self._guard.kill()
                self._guard_lost()
        return self.exit_code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself."""
        if self.poll() is None and self.pid:
            os.kill(self.pid, number)

    def log_tail(self, lines_max: int = 15) -> str:
        """Return the last lines of the child's output."""
        with self.spec.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(log.tell() - TAIL_BYTES_MAX, 0))
            lines = deque(log.read(TAIL_BYTES_MAX).decode("utf-8", "replace").splitlines(), maxlen=lines_max)
        return "\n".join(lines)

    def failure(self, what: str) -> DevServerError:
        """Return an error that says `what` happened to this child and shows its last log lines."""
        return DevServerError(f"{self.spec.name} {what}; the end of {self.spec.log}:\n{self.log_tail()}")

    def _start(self, hold_open: Sequence[int]) -> None:
        spec = self.spec
        order = {
            "argv": spec.argv,
            "cwd": str(spec.cwd),
            "log": str(spec.log),
            "environment": dict(spec.environment),
            "uid": spec.account.uid if spec.account else None,
            "gid": spec.account.gid if spec.account else None,
            "stop_signal": int(spec.stop_signal),
            "stop_grace_s": spec.stop_grace_s,
            "hold_open": list(hold_open),
        }
        deadline_s = time.monotonic() + GUARD_START_S_MAX
        try:
            _write_all(self._lifeline, json.dumps(order).encode() + b"\n")
            while self.poll() is None and not self.pid and time.monotonic() < deadline_s:
                select.select([self], [], [], READY_POLL_S)
        except BrokenPipeError:
            pass
        except BaseException:
            self.stop()
            raise
        if not self.pid:
            self.stop()
            raise self.failure("could not be started")

    def _guard_lost(self) -> None:
        """End the child without its guard, which somebody killed. psutil notices a process id that was given away."""
        with suppress(psutil.NoSuchProcess):
            if self._process:
                self._process.send_signal(self.spec.stop_signal)
                with suppress(psutil.TimeoutExpired):
                    self._process.wait(self.spec.stop_grace_s)
                self._process.kill()
        self._ended(-signal.SIGKILL)

    def _ended(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self._close_lifeline()
        self._guard.wait(GUARD_MARGIN_S)
        self._status.close()

    def _close_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


@dataclass(frozen=True, slots=True)
class RunningServer:
    """An embedded server: its address (password included), its process, and where its data lies."""

    address: str
    child: Child
    data: Path


def wait_until(ready: Callable[[], bool], child: Child, timeout_s: float) -> bool:
    """Return True once `ready()` does, False when `child` ended first. Raises DevServerError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        if child.poll() is not None:
            return False
        if ready():
            return True
        if time.monotonic() >= deadline_s:
            raise child.failure(f"was not ready after {timeout_s:.0f} s")
        select.select([child], [], [], READY_POLL_S)


def _rotate(log: Path) -> None:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
