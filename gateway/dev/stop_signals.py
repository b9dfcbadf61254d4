"""Turns the signals that ask a program to end into one exception, once: stopping itself is not interrupted."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a supervisor, a closed terminal


class StopRequested(KeyboardInterrupt):
    """Somebody wants this program to end."""


class StopSignals:
    """Whether a signal still raises. `disarm` before the things are taken down that a signal would interrupt."""

    def __init__(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        """Ignore signals from now on: stopping is under way and bounded in time."""
        self._armed = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise StopRequested in the main thread, the first time."""
        del frame
        if self._armed:
            self._armed = False
            raise StopRequested(signal.Signals(number).name)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Install the handlers for the length of the block. Main thread only."""
    signals = StopSignals()
    before = {number: signal.signal(number, signals.handle) for number in HANDLED}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
