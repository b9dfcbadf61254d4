"""Virtual environments for programs that cannot share one with the suite, each made once, in `.cache/`.

What is in them is pinned with hashes in `requirements/`; one is made again when its lock file or this Python changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INSTALL_S_MAX = 600.0


@dataclass(frozen=True)
class Environment:
    """What an environment holds.

    `locks` are files of `requirements/` without `.txt`, installed one after the other. `options` are pip's, `variables`
    are set while it installs. `quiet` False shows what pip does.
    """

    name: str
    locks: tuple[str, ...]
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = INSTALL_S_MAX
    quiet: bool = True

    @property
    def folder(self) -> Path:
        """Where it is."""
        return REPOSITORY / ".cache" / f"{self.name}-venv"

    def python(self) -> Path:
        """Return its interpreter; the environment is made where it is missing or not of these locks.

        Two suites at once make it once. Raises CalledProcessError when it cannot be made, TimeoutExpired when
        that takes too long.
        """
        self.folder.parent.mkdir(exist_ok=True)
        with self.folder.with_suffix(".lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not self.is_made():
                self._make()
                self._stamp.write_text(self._made_from())
        return self.folder / "bin" / "python"

    def is_made(self) -> bool:
        """Whether it is there, as its locks say."""
        return self._stamp.exists() and self._stamp.read_text() == self._made_from()

    @property
    def _stamp(self) -> Path:
        return self.folder / "made-from.txt"

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._run(sys.executable, "-m", "venv", str(self.folder))
        python = str(self.folder / "bin" / "python")
        quiet = ("--quiet",) if self.quiet else ()
        for lock in self._lock_files():
            pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *quiet, *self.options)
            self._run(*pip, "--require-hashes", "--requirement", str(lock))

    def _lock_files(self) -> list[Path]:
        return [REPOSITORY / "requirements" / f"{lock}.txt" for lock in self.locks]

    def _made_from(self) -> str:
        made_of = [lock.read_bytes() for lock in self._lock_files()]
        made_of += [word.encode() for word in self.options]
        return f"{sys.version} {self.folder} {hashlib.sha256(b''.join(made_of)).hexdigest()}"

    def _run(self, *command: str) -> None:
        path = os.pathsep.join((str(self.folder / "bin"), os.environ.get("PATH", os.defpath)))
        variables = {**os.environ, **self.variables, "PATH": path}
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=self.timeout_s, env=variables)
