"""A signal ends a program once, wherever it meets it."""

from __future__ import annotations

import signal
import threading

import pytest

from gateway.dev.stop_signals import StopRequested, stop_signals

PATIENCE_S = 30.0


class Met:
    """Meets a signal while it is taken away, where Python swallows every exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_raises_once_and_not_while_things_are_taken_down() -> None:
    with stop_signals() as signals:
        with pytest.raises(StopRequested, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        signals.disarm()
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_is_swallowed_comes_again() -> None:
    def meet_and_wait() -> None:
        Met()
        threading.Event().wait(PATIENCE_S)

    with stop_signals(), pytest.raises(StopRequested, match="SIGTERM"):
        meet_and_wait()


def test_other_exceptions_that_are_swallowed_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise LookupError

    with stop_signals():
        broken: Broken | None = Broken()
        broken = None
        assert broken is None
    assert told == [LookupError]
