"""What `--help` shows on a narrow terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.cli.lazy import COMMANDS
from gateway.cli.run import run

if TYPE_CHECKING:
    import pytest


def all_commands() -> list[tuple[tuple[str, ...], Any]]:
    """Return every command of the command line with the words that call it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, lazy in COMMANDS.items():
        command = lazy.load(name)
        found += [((name,), command), *(((name, sub), one) for sub, one in getattr(command, "commands", {}).items())]
    return found


def test_no_option_name_is_cut_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = all_commands()
    assert len(commands) > len(COMMANDS) > 10
    for words, command in commands:
        assert run([*words, "--help"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80
        names = [name for option in command.params if not option.hidden for name in option.opts + option.secondary_opts]
        missing = [name for name in names if name.startswith("-") and name not in shown.replace(",", " ").split()]
        assert missing == [], words


def test_a_list_of_commands_says_what_each_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["key", "--help"]) == 0
    assert "it is not kept and cannot be shown again." in " ".join(capsys.readouterr().out.split())
