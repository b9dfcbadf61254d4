"""Completion of `penstock` as a shell has it: the script that is shown, sourced by a real bash, asked as TAB asks."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Penstock

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("asyncpg", "fastapi", "httpx2", "gateway.settings", "sqlalchemy", "structlog", "yaml")


@pytest.fixture
def shell(tmp_path: Path) -> Penstock:
    """The command on the PATH, under its name, with a database that nobody could reach."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "penstock"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gateway "$@"\n')
    command.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return Penstock(tmp_path, {"PATH": path, "PENSTOCK_POSTGRES_DSN": "postgresql://nobody@192.0.2.1/none"})


def completed(shell: Penstock, line: str) -> list[str]:
    """Return what bash offers when TAB is pressed at the end of a line."""
    script = f"""
        eval "$(penstock --show-completion bash)"
        COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=({line}{' ""' if line.endswith(" ") else ""})
        COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        handler=$(complete -p penstock | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $handler penstock
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=shell.environment,
        cwd=shell.folder,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_of_groups_and_options(shell: Penstock) -> None:
    assert completed(shell, "penstock au") == ["audit"]
    assert {"create", "list", "rotate", "revoke"} <= set(completed(shell, "penstock key "))
    assert {"--budget-usd", "--budget-period"} <= set(completed(shell, "penstock limit set --budget-"))


@pytest.mark.parametrize(
    ("name", "words"), [("bash", "complete -"), ("zsh", "compdef"), ("fish", "complete --command")]
)
def test_every_shell_has_its_script(shell: Penstock, name: str, words: str) -> None:
    shown = shell("--show-completion", name)
    assert (shown.code, shown.err) == (0, "")
    assert words in shown.out
    assert "_PENSTOCK_COMPLETE" in shown.out


def test_it_is_installed_for_bash(shell: Penstock) -> None:
    at_home = Penstock(shell.folder, shell.variables | {"HOME": str(shell.folder)})
    done = at_home("--install-completion", "bash")
    assert done.code == 0
    assert "penstock" in (shell.folder / ".bashrc").read_text()


@pytest.mark.parametrize("group", ["org", "key", "limit", "audit"])
def test_a_word_is_completed_without_what_only_a_call_needs(shell: Penstock, group: str) -> None:
    asked = {"_PENSTOCK_COMPLETE": "complete_bash", "COMP_WORDS": f"penstock {group} l", "COMP_CWORD": "2"}
    program = (
        "import atexit, sys; from gateway.__main__ import main;"
        f"atexit.register(lambda: print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment | asked,
        cwd=shell.folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["list"], "[]\n")
