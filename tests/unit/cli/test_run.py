"""How the command line ends when something goes wrong inside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

from gateway.cli import run as module
from gateway.cli.run import FAILED, INTERRUPTED, run

if TYPE_CHECKING:
    import pytest


def ending_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """Return the exit code of a command line whose command raises `error`."""

    def main(**_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(module, "get_command", lambda _app: SimpleNamespace(main=main))
    return run([])


def test_a_fault_is_placed_but_not_quoted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending_with(monkeypatch, RuntimeError("hunter2")) == FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: a fault in penstock itself: RuntimeError at ")
    assert said.count("\n") == 1
    assert "hunter2" not in said


def test_an_interrupt_is_not_a_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending_with(monkeypatch, KeyboardInterrupt()) == INTERRUPTED
    assert capsys.readouterr().err == ""
