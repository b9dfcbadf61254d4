"""The folder of one development environment, used by one `penstock dev` at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE = "lock"


@dataclass(frozen=True, slots=True)
class DataDir:
    """The folder, absolute, and whether its last user was killed and may still have processes that are ending."""

    path: Path
    left_behind: bool


@contextmanager
def locked_data_dir(folder: Path) -> Iterator[DataDir]:
    """Make the folder where it is missing, and hold it for the length of the block.

    The lock is the kernel's: it is gone with this process, however that ends. Raises DevServerError when another
    `penstock dev` holds it or when the folder cannot be used.
    """
    folder = folder.expanduser().resolve()
    try:
        # 0711: as root, PostgreSQL's account has to pass through. All files in it are private on their own.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevServerError(
            f"cannot use {folder}: {error.strerror}. Choose another folder with --data-dir, or remove this one when "
            "another account made it"
        ) from error
    try:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DevServerError(
                f"another `penstock dev` (process {holder or 'unknown'}) uses {folder}: stop that one, or choose "
                "another folder with --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield DataDir(folder, left_behind=bool(holder))
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
