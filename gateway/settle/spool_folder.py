"""Folders of a spool directory: one for each process, held by a lock that the kernel drops when the process ends.

    SPOOL_DIR/<boot id>/lock            flock'ed by the process that writes, or that drains what another has left
    SPOOL_DIR/<boot id>/00000001.seg    segments, see `spool_frames`
    SPOOL_DIR/<boot id>-00000001.corrupt   kept aside for a person, never looked at again

A folder is made under a hidden name and renamed once it is locked, so nobody can take a new one for a left one; it is
removed under a hidden name, too, so nobody can take it meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOCK_FILE = "lock"
SEGMENT_SUFFIX = ".seg"
CORRUPT_SUFFIX = ".corrupt"
HIDDEN_PREFIX = ".new-"
ABANDONED_S = 60.0
"""Age from which a folder under its hidden name was left by a process that died while it made it."""


@dataclass(slots=True, eq=False)
class LockedFolder:
    """A folder that this process holds."""

    path: Path
    lock: int

    def segments(self) -> list[Path]:
        """Return its segments, oldest first."""
        return sorted(path for path in self.path.iterdir() if path.suffix == SEGMENT_SUFFIX)

    def set_aside(self, segment: Path) -> Path:
        """Move a damaged segment to where nobody drains it, and return its new path."""
        aside = self.path.parent / f"{self.path.name}-{segment.stem}{CORRUPT_SUFFIX}"
        segment.replace(aside)
        return aside

    def leave(self) -> bool:
        """Let go of the folder, and remove it when nothing is left in it; returns whether it is gone."""
        try:
            if any(path.name != LOCK_FILE for path in self.path.iterdir()):
                return False
            # First out of the way: who came to take it in between would make a lock in it again, and it would stay.
            hidden = self.path
            if not hidden.name.startswith(HIDDEN_PREFIX):
                hidden = hidden.rename(hidden.with_name(f"{HIDDEN_PREFIX}{hidden.name}"))
            (hidden / LOCK_FILE).unlink(missing_ok=True)
            hidden.rmdir()
        except OSError:
            return not self.path.exists()
        else:
            return True
        finally:
            os.close(self.lock)


def make_folder(root: Path, name: str) -> LockedFolder:
    """Make and lock `root/name`, and `root` where it is missing. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = root / f"{HIDDEN_PREFIX}{name}"
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(root / name)
        sync_folder(root)
    except OSError:
        os.close(lock)
        raise
    return LockedFolder(root / name, lock)


def left_folders(root: Path, own: str) -> list[Path]:
    """Return the folders of other processes, living or not, and remove what was never finished. Raises OSError."""
    found = []
    for path in root.iterdir():
        if path.name == own or not path.is_dir():
            continue
        if not path.name.startswith("."):
            found.append(path)
        elif path.name.startswith(HIDDEN_PREFIX):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S and (folder := take_folder(path)) is not None:
                    folder.leave()
    return sorted(found)


def take_folder(path: Path) -> LockedFolder | None:
    """Lock a folder whose process has ended; None when it lives, or when the folder is gone."""
    try:
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(lock), (path / LOCK_FILE).stat())
    except OSError:
        held = False
    if not held:
        os.close(lock)
        return None
    return LockedFolder(path, lock)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
