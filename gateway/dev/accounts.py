"""The account that PostgreSQL runs under: one's own, or an unprivileged one when started as root.

PostgreSQL refuses to run as root. Nothing here widens the permissions of a folder that exists already: where the
unprivileged account cannot reach the data directory, data lives under `SHARED_HOME`.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

CANDIDATES = ("postgres", "nobody")
SHARED_HOME = Path("/var/lib/penstock-dev")
PROBE_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """An account of this machine, by name and numbers."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account to drop to, or None when this process is not root. Raises DevServerError where none exists."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise DevServerError(
        "PostgreSQL does not run as root, and this machine has neither an account 'postgres' nor 'nobody' to run it "
        "under: start as an ordinary user, or set PENSTOCK_POSTGRES_DSN to a server that runs already"
    )


def run_as(
    account: Account | None, argv: Sequence[str | Path], *, timeout_s: float, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a short program, as `account` when one is given, and return its exit code and what it said.

    Raises PermissionError or FileNotFoundError when it cannot be run, DevServerError when it takes too long.
    """
    try:
        return subprocess.run(  # noqa: S603  # programs that the callers chose, without a shell
            [str(part) for part in argv],
            input=stdin,
            text=True,
            errors="replace",
            capture_output=True,
            timeout=timeout_s,
            check=False,
            cwd="/",  # a folder that every account can enter
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired as error:
        raise DevServerError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error


def can_enter(folder: Path, account: Account) -> bool:
    """Return whether `account` can reach `folder`: tried as that account, so that every kind of permission counts."""
    try:
        return run_as(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", folder], timeout_s=PROBE_S_MAX).returncode == 0
    except OSError as error:  # for example a container that has no other accounts
        raise DevServerError(
            f"cannot run a program under the account '{account.name}' ({error}): start as an ordinary user, or set "
            "PENSTOCK_POSTGRES_DSN to a server that runs already"
        ) from error
