"""`penstock login` as a process, and the person beside it who opens what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.support.command import COMMAND_S_MAX, Outcome
from tests.support.oidc import Person

if TYPE_CHECKING:
    from tests.support.command import Penstock

OPEN: Final = re.compile(r"open (http://\S+[?]\S+)")


def logged_in_as(account: str, penstock: Penstock, *arguments: str) -> tuple[Outcome, str]:
    """Run `penstock login ARGUMENTS`, be `account` at the address that it says, and return how both ended.

    Standard input is closed and standard output a pipe, as for a program that runs it.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "login", *arguments],
        cwd=penstock.folder,
        env=penstock.environment | {"BROWSER": "true"},  # the program of that name, which shows nothing
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # no terminal to fall back on
    )
    assert process.stderr is not None
    said, page = "", ""
    try:
        for line in process.stderr:
            said += line
            if found := OPEN.search(line):
                page = Person(account).visit(found[1])
                break
        out, err = process.communicate(timeout=COMMAND_S_MAX)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Outcome(process.returncode, out, said + err), page
