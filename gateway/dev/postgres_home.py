"""Decides where PostgreSQL's files lie: inside the data directory, unless the server's account cannot reach that.

As root the server runs under another account. A data directory below /root (or any private folder) is out of its
reach, and opening that folder is not ours to do: the files then go to a private folder in /var/lib/penstock-dev.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from gateway.dev.accounts import SHARED_HOME, Account, can_enter
from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path

OWNER_FILE = "belongs-to"


def prepare_home(data_dir: Path, account: Account | None, *, keep: bool, shared_home: Path = SHARED_HOME) -> Path:
    """Return the folder for PostgreSQL's files, owned by `account` with mode 0700.

    `keep` says whether `data_dir` still knows the password of what lies there. When it does not, the data directory was
    deleted and made again, and files left outside of it are of no use to anybody: they are removed.
    """
    data_dir = data_dir.resolve()
    home = home_of(data_dir, account, shared_home)
    outside = home.parent != data_dir
    try:
        if outside:
            home.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            if home.exists() and not keep:
                _remove_leftover(home, data_dir)
        home.mkdir(mode=0o700, exist_ok=True)
        if outside and not (home / OWNER_FILE).exists():
            (home / OWNER_FILE).write_text(f"{data_dir}\n", encoding="utf-8")
        if account and home.stat().st_uid != account.uid:
            os.chown(home, account.uid, account.gid)
    except OSError as error:
        raise DevServerError(f"cannot prepare the folder {home} for PostgreSQL: {error}") from error
    if account and not can_enter(home, account):
        raise DevServerError(f"the account '{account.name}', which PostgreSQL runs under, cannot reach {home}")
    return home


def home_of(data_dir: Path, account: Account | None, shared_home: Path = SHARED_HOME) -> Path:
    """Return where PostgreSQL's files for this data directory lie, without making anything."""
    inside = data_dir / "postgres"
    if account is None or inside.exists() or can_enter(data_dir, account):
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return shared_home / f"data-{digest}"


def _remove_leftover(home: Path, data_dir: Path) -> None:
    """Remove the files of a data directory that is gone; refuse when the folder is not one of ours."""
    try:
        owner = (home / OWNER_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        owner = ""
    if owner != str(data_dir):
        raise DevServerError(f"{home} exists and was not made for {data_dir}: move it away")
    shutil.rmtree(home)
