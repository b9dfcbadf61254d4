"""The command that OpenCode runs to get a key: in real shells, at a terminal and without one.

PowerShell itself is not to be had everywhere: its script is parsed with a grammar of its own, and held to what a
Windows command line can carry.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from gateway.edge.opencode_login import Shell, login_command
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://gateway.example.com"
KEY = "sk-pst-0123456789abcdef_0123456789ABCDEFabcd"
RUN_S_MAX = 20.0
SHELLS = [shell for shell in ("dash", "bash", "busybox", "zsh") if shutil.which(shell)]
PATH = "/usr/local/bin:/usr/bin:/bin"


def script_for(shell: str, *, signs_in: bool = False) -> list[str]:
    """Return the command with a certain shell for `sh`."""
    program, *arguments = login_command(URL, Shell.SH, signs_in=signs_in)
    assert program == "sh"
    return [*({"busybox": ["busybox", "sh"], "zsh": ["zsh", "--emulate", "sh"]}.get(shell, [shell])), *arguments]


def run(command: list[str], folder: Path, **variables: str) -> tuple[int, str, str]:
    """Run it as OpenCode does where there is no terminal."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": PATH} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_S_MAX,
        check=False,
        text=True,
        start_new_session=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_there_is_a_shell_to_test_with() -> None:
    assert SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_key_in_the_environment_is_taken_without_a_question(shell: str, tmp_path: Path) -> None:
    assert run(script_for(shell), tmp_path, PENSTOCK_KEY=KEY) == (0, KEY, "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("pasted", ['sk-pst-a"b', "sk-pst-a b", "sk-pst-$(id)", "sk-pst-", "sk-other", "sk-pst-ä"])
def test_what_is_no_key_is_refused(shell: str, pasted: str, tmp_path: Path) -> None:
    """It would go into a header, and into JSON as it stands."""
    code, out, told = run(script_for(shell), tmp_path, PENSTOCK_KEY=pasted)
    assert (code, out) == (1, "")
    assert f"keys begin with sk-pst-. {URL}/setup says how to get one" in told
    assert pasted not in told or pasted == "sk-pst-"


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_terminal_it_says_what_to_set(shell: str, tmp_path: Path) -> None:
    code, out, told = run(script_for(shell), tmp_path)
    assert (code, out) == (1, "")
    assert "set PENSTOCK_KEY and try again" in told


@pytest.mark.parametrize("shell", SHELLS)
def test_at_a_terminal_it_asks_and_does_not_show_the_answer(shell: str, tmp_path: Path) -> None:
    wrapped = ["sh", "-c", 'out=$1; shift; "$@" </dev/null >"$out"; stty -a', "sh", "out", *script_for(shell)]
    with Terminal(wrapped, tmp_path, {"PATH": PATH}) as terminal:
        terminal.shows(f"Paste your key for {URL} (it is not shown): ")
        terminal.types(f"  {KEY} \n")
        assert terminal.ends() == 0
    assert (tmp_path / "out").read_text() == KEY
    assert KEY not in terminal.shown
    assert " echo " in terminal.shown.replace("\r", " ").replace(";", " "), "the terminal echoes again"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_interrupt_leaves_the_terminal_as_it_was(shell: str, tmp_path: Path) -> None:
    wrapped = ["sh", "-c", 'trap : INT; "$@" </dev/null; stty -a', "sh", *script_for(shell)]
    with Terminal(wrapped, tmp_path, {"PATH": PATH}) as terminal:
        terminal.shows("(it is not shown): ")
        terminal.types("\x03")
        terminal.shows(" echo ")


@pytest.mark.parametrize("shell", SHELLS)
def test_where_people_sign_in_penstock_is_asked(shell: str, tmp_path: Path) -> None:
    penstock = tmp_path / "penstock"
    penstock.write_text(f'#!/bin/sh\necho "$@" >asked\n[ -e fails ] && exit 1\necho {KEY}\n')
    penstock.chmod(0o755)
    command, path = script_for(shell, signs_in=True), f"{tmp_path}:{PATH}"
    assert run(command, tmp_path, PATH=path) == (0, KEY, "")
    assert (tmp_path / "asked").read_text() == f"login {URL} --print-key\n"
    (tmp_path / "asked").unlink()
    assert run(command, tmp_path, PATH=path, PENSTOCK_KEY=KEY) == (0, KEY, "")
    assert not (tmp_path / "asked").exists(), "a key that is there is taken"
    (tmp_path / "fails").touch()
    assert run(command, tmp_path, PATH=path) == (1, "", "")
    code, _, told = run(command, tmp_path)
    assert (code, "set PENSTOCK_KEY" in told) == (1, True), "without penstock: the question"


def test_where_no_key_is_needed_nobody_is_asked(tmp_path: Path) -> None:
    assert run(login_command(URL, Shell.SH, signs_in=True, needs_key=False), tmp_path) == (0, "local", "")
    (*_, script) = login_command(URL, Shell.POWERSHELL, signs_in=True, needs_key=False)
    assert script == "[Console]::Out.Write('local')"


@pytest.mark.parametrize("signs_in", [False, True])
def test_the_powershell_variant_is_powershell(signs_in: bool) -> None:  # noqa: FBT001 - pytest passes by name
    *start, script = login_command(URL, Shell.POWERSHELL, signs_in=signs_in)
    assert start == ["powershell", "-NoProfile", "-Command"]
    parser = Parser(Language(tree_sitter_powershell.language()))
    assert not parser.parse(script.encode()).root_node.has_error
    assert parser.parse(script.replace("}", "", 1).encode()).root_node.has_error, "the grammar does find faults"
    assert '"' not in script, "quotes do not survive a Windows command line"
    assert not script.rstrip().endswith("\\")
    assert ("--print-key" in script) == signs_in


def test_an_address_stays_an_address_in_both_shells(tmp_path: Path) -> None:
    """The settings let no such address through; the scripts would not run it either."""
    evil = "https://x'; touch hurt; echo '$(touch hurt)`touch hurt`"
    sh = login_command(evil, Shell.SH, signs_in=True)
    code, _, told = run(sh, tmp_path, PENSTOCK_KEY="no")
    assert (code, evil in told) == (1, True)
    assert not (tmp_path / "hurt").exists()
    script = login_command(evil, Shell.POWERSHELL, signs_in=True)[-1]
    assert script.count("'https://x''; touch hurt; echo ''$(touch hurt)`touch hurt`'") == 2
