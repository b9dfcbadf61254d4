"""Turns the signals that ask a program to end into one exception, once: stopping itself is not interrupted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a supervisor, a closed terminal
AGAIN_S = 0.05
"""When a signal whose exception was swallowed is sent again; what swallowed it is over by then."""


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

    def swallowed(self, stop: StopRequested) -> None:
        """Send the signal again: it arrived where no exception gets out, such as in a `__del__`."""
        self._armed = True
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.Signals[str(stop)]))
        again.daemon = True
        again.start()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Install the handlers for the length of the block. Main thread only."""
    signals = StopSignals()
    told_before = sys.unraisablehook

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, StopRequested):
            signals.swallowed(unraisable.exc_value)
        else:
            told_before(unraisable)

    before = {number: signal.signal(number, signals.handle) for number in HANDLED}
    sys.unraisablehook = tell
    try:
        yield signals
    finally:
        sys.unraisablehook = told_before
        for number, handler in before.items():
            signal.signal(number, handler)
