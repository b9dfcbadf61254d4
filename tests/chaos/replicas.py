"""A replica that is killed and started again, on its own ports and with its own spool, as a pod with a volume is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.http import Http
    from tests.support.proxy import Proxy

STARTS_MAX = 8
"""Each waits half a minute for Postgres."""


@dataclass(frozen=True)
class Killed:
    """When a replica was killed, in Unix time, and when it served again."""

    replica: int
    at: float
    back_at: float


class Replica:
    """One of several. Its home holds penstock.yaml, the log of each of its lives, and the spool."""

    def __init__(
        self,
        number: int,
        home: Path,
        *,
        engines: Sequence[str],
        models: Mapping[str, Any],
        postgres: Proxy,
        redis: Proxy,
        settings: Mapping[str, str | float],
    ) -> None:
        self.number = number
        self.home = home
        self.postgres = postgres
        self.redis = redis
        self.killed: list[Killed] = []
        self._killed_at = 0.0
        config = write_config(home / "penstock.yaml", engines, models=models)
        known = {name: value for name, value in settings.items() if name in Settings.model_fields}
        self._process = GatewayProcess(config, postgres.address, redis.address, **AS_SHIPPED, **known)
        self._serving = False

    @property
    def serving(self) -> bool:
        """Whether it was started and not killed since."""
        return self._serving

    @property
    def pid(self) -> int:
        """The process id. It must be running."""
        return self._process.pid

    def http(self, key: str | None = None) -> Http:
        """Return a client of it."""
        return self._process.http(key)

    def metrics(self) -> dict[str, float]:
        """Return the samples of its metrics."""
        return self._process.metrics()

    def logs(self) -> list[Path]:
        """Return the logs of its lives."""
        return sorted(self.home.glob("gateway-*.log"))

    def start(self) -> None:
        """Start it, as often as it takes: with Postgres away it gives up after a while, as pods do."""
        for number in range(1, STARTS_MAX + 1):
            try:
                self._process.start()
            except AssertionError:
                if number == STARTS_MAX:
                    raise
            else:
                break
        self._serving = True

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._serving = False
        self._process.kill()
        self._killed_at = time.time()

    def start_again(self) -> None:
        """Start it after `kill`."""
        self.start()
        self.killed.append(Killed(self.number, self._killed_at, time.time()))

    def terminate(self) -> int:
        """End it properly; return the exit code."""
        self._serving = False
        return self._process.terminate()

    def end(self) -> None:
        """End it somehow; nothing happens when it does not run."""
        self._serving = False
        self._process.kill()
