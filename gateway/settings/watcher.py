"""Notices that penstock.yaml, or a credential file it refers to, has changed, and reads it again.

By polling: editors rename, Kubernetes swaps symlinks two folders up, network file systems send no events; a `stat` sees
all of it. A file that is wrong changes nothing: the last good configuration stays until the file is right.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway.settings.config_file import load_config
from gateway.settings.problems import ConfigFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.config import GatewayConfig, Timeouts

POLL_INTERVAL_S = 0.3
"""A change is in force after two intervals at most, and the time that reading takes: within a second."""

Fingerprint = dict[Path, tuple[int, ...] | None]


class ConfigWatcher:
    """Holds the configuration in force. `load` reads it at the start, `run` keeps it up to date.

    Attributes:
        config: the last good configuration, None before the first.
        generation: how many configurations have been taken, 1 after `load`.
        last_error: what is wrong with the file as it is now, None when it is in force.
    """

    def __init__(self, path: Path, *, timeouts: Timeouts | None = None, interval_s: float = POLL_INTERVAL_S) -> None:
        self.config: GatewayConfig | None = None
        self.generation = 0
        self.last_error: ConfigFileError | None = None
        self._path = path
        self._timeouts = timeouts
        self._interval_s = interval_s
        self._watched: tuple[Path, ...] = (path,)
        self._read: Fingerprint = {}
        self._pending: Fingerprint | None = None
        self._log = structlog.get_logger("penstock.settings")

    def load(self) -> GatewayConfig:
        """Read the file now and return what it says. Raises ConfigFileError, and then nothing has changed."""
        seen = _fingerprint(self._watched)
        config = load_config(self._path, timeouts=self._timeouts)
        self._take(config, seen)
        return config

    async def run(self, on_change: Callable[[GatewayConfig], None]) -> None:
        """Until cancelled, call `on_change` with each new configuration, two intervals after it was written."""
        while True:
            await asyncio.sleep(self._interval_s)
            config = await self.check()
            if config is not None:
                on_change(config)

    async def check(self) -> GatewayConfig | None:
        """Look once. Return a configuration when it is new, valid, and was left alone since the check before.

        The second look is for writers that are not atomic: half a file can be valid YAML. Files are read in a thread.
        """
        seen = await asyncio.to_thread(_fingerprint, self._watched)
        if seen == self._read:
            self._pending = None
            return None
        if seen != self._pending:
            self._pending = seen
            return None
        try:
            config = await asyncio.to_thread(load_config, self._path, timeouts=self._timeouts)
        except ConfigFileError as error:
            self._refuse(error, seen)
            return None
        return config if self._take(config, seen) else None

    def _take(self, config: GatewayConfig, seen: Fingerprint) -> bool:
        """Put `config` in force and return whether it differs from the one before."""
        self.last_error = None
        self._note(seen, config.secret_files)
        if config == self.config:
            return False
        self.config = config
        self.generation += 1
        self._log.info(
            "config_loaded",
            file=str(self._path),
            generation=self.generation,
            pools=len(config.pools),
            models=len(config.models),
        )
        return True

    def _refuse(self, error: ConfigFileError, seen: Fingerprint) -> None:
        """Keep the old configuration, and say why once for as long as the reasons are the same."""
        if self.last_error is None or self.last_error.problems != error.problems:
            problems = [problem.render(error.source) for problem in error.problems]
            self._log.error("config_refused", file=str(self._path), generation=self.generation, problems=problems)
        self.last_error = error
        self._note(seen, error.secret_files)

    def _note(self, seen: Fingerprint, secret_files: tuple[Path, ...]) -> None:
        # A file watched from now on is missing in `seen`: the next checks read once more, with its state known first.
        self._watched = (self._path, *secret_files)
        self._read = seen
        self._pending = None


def _fingerprint(paths: tuple[Path, ...]) -> Fingerprint:
    """Return what changes when a file does, following symlinks; None for one that is not there.

    Device and inode tell renames and symlink swaps, the change time tells what became readable.
    """
    return {path: _state(path) for path in paths}


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
