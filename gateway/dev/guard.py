"""Runs one child process and makes sure that it ends when its owner does, however the owner ends.

Started as `python -I guard.py NAME` by `gateway.dev.children`, with nothing but the standard library. Its standard
input is a pipe whose writing end the owner holds: the owner's death, even by kill -9, closes that end, and then the
guard stops the child with the signal that the child shuts down cleanly on. A pipe needs no polling, works for a child
under another account, and orders the shutdown: a guard may hold the pipes of the servers that its child depends on.
On Linux the kernel also signals the child should the guard itself be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
SPEC_BYTES_MAX = 1024 * 1024
EXEC_FAILED = 127
HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def read_spec(descriptor: int) -> dict[str, Any]:
    """Return what to run: the first line on the owner's pipe. Raises EOFError when the owner ended before that."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, 65536)
        if not chunk or len(line) > SPEC_BYTES_MAX:
            raise EOFError("the owner ended before it said what to run")
        line += chunk
    spec: dict[str, Any] = json.loads(line)
    return spec


def run_child(spec: dict[str, Any], guard_pid: int) -> None:
    """Become the child: the account, the output file, the environment, then the program. Returns only on failure."""
    for changed in (*HANDLED, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two, and exec would keep that
        signal.signal(changed, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if spec["uid"] is not None:
        os.setgroups([])
        os.setgid(spec["gid"])
        os.setuid(spec["uid"])
    if sys.platform == "linux":  # after the change of account, which clears it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, spec["stop_signal"])
        if os.getppid() != guard_pid:
            return
    os.chdir(spec["cwd"])
    for name, value in spec["environment"].items():
        os.putenv(name, value)
    os.execv(spec["argv"][0], spec["argv"])  # noqa: S606  # the program is the owner's choice; a shell is not wanted


def start_child(spec: dict[str, Any]) -> int:
    """Fork and run the program; return its process id. One that cannot be run exits 127 and says why in its log."""
    guard_pid = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # a stop must not meet this interpreter's handlers in the child
    pid = os.fork()  # safe here: this interpreter has a single thread
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        return pid
    try:
        run_child(spec, guard_pid)
    except Exception as error:
        os.write(2, f"cannot run {spec['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(EXEC_FAILED)


def report(message: str) -> None:
    """Tell the owner, who may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{message}\n".encode())


def supervise(pid: int, spec: dict[str, Any], wakeup: int) -> int:
    """Wait for the child to end or for a reason to stop it; return its exit code, negative for a signal."""
    lifeline: list[int] = [0]
    stop_by_s = float("inf")  # of time.monotonic(); infinite until the child is told to stop
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        timeout_s = None if stop_by_s == float("inf") else max(stop_by_s - time.monotonic(), 0)
        readable, _, _ = select.select([*lifeline, wakeup], [], [], timeout_s)
        received = os.read(wakeup, 512) if wakeup in readable else b""
        owner_gone = 0 in readable and not os.read(0, 65536)
        if owner_gone:
            lifeline = []
        if stop_by_s == float("inf") and (owner_gone or any(number != signal.SIGCHLD for number in received)):
            os.kill(pid, spec["stop_signal"])
            stop_by_s = time.monotonic() + spec["stop_grace_s"]
        elif time.monotonic() >= stop_by_s:
            os.kill(pid, signal.SIGKILL)  # cannot hit a stranger: the child has not been waited for yet
            stop_by_s = time.monotonic() + 1


def main() -> int:
    """Run the child that the first line on standard input describes, until it ends or has been stopped."""
    wakeup, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
    for number in HANDLED:
        signal.signal(number, lambda *_: None)  # the wake-up pipe carries the number
    try:
        spec = read_spec(0)
    except EOFError:
        return 0
    for descriptor in spec["hold_open"]:
        os.set_inheritable(descriptor, False)
    pid = start_child(spec)
    report(f"pid {pid}")
    report(f"exit {supervise(pid, spec, wakeup)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
