"""A program at a terminal: what it shows is awaited, what a person would type is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.support.interrupts import interrupts_heard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

SHOWS_S_MAX = 60.0
READ_BYTES = 65_536
ROWS, COLUMNS = 50, 200
# Not in a `preexec_fn`, which is not safe in a process with threads.
AT_THE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """Runs `command` with a terminal of its own as a context manager; leaving it hangs up and ends the program."""

    def __init__(self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
        self._command, self._folder, self._environment = command, folder, environment
        self._typed_at = 0
        self.shown = ""
        """All that it has shown so far, what was typed included where the terminal echoes."""

    def __enter__(self) -> Self:
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        try:
            with interrupts_heard():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", AT_THE_TERMINAL, *self._command],
                    cwd=self._folder,
                    env={"TERM": "xterm", **self._environment},
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                )
        finally:
            os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._own)  # whoever still reads there is hung up on
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def shows(self, text: str) -> None:
        """Wait until it shows `text`, counted from what was shown when something was typed last."""
        until_s = time.monotonic() + SHOWS_S_MAX
        while text not in self.shown[self._typed_at :]:
            assert self._read(until_s), f"it never showed {text!r}:\n{self.shown}"

    def types(self, text: str) -> None:
        """Type `text`; a newline is the Enter key."""
        self._typed_at = len(self.shown)
        os.write(self._own, text.replace("\n", "\r").encode())

    def ends(self) -> int:
        """Wait for its end and return the exit code."""
        until_s = time.monotonic() + SHOWS_S_MAX
        while self._read(until_s):
            pass
        return self._process.wait(SHOWS_S_MAX)

    def _read(self, until_s: float) -> bool:
        """Take in what it shows next; False at its end, or when there was nothing until then."""
        ready, _, _ = select.select([self._own], [], [], max(0.0, until_s - time.monotonic()))
        if not ready:
            return False
        try:
            piece = os.read(self._own, READ_BYTES)
        except OSError:  # Linux's way of saying that nobody has the other end
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)
