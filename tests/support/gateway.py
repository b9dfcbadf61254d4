"""One replica of the gateway as a process of its own, for tests: start, ask, read its metrics and log, end it.

config = write_config(tmp_path / "penstock.yaml", [engine.url])
with GatewayProcess(config, postgres_dsn, redis_url, redis_away_policy="deny") as gateway:
    answer = gateway.http(tenant.key).post("/v1/chat/completions", {...})
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import yaml

from gateway.dev.files import free_port
from gateway.settings import Settings
from tests.support.command import Penstock
from tests.support.engine import sampled
from tests.support.http import Http
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

START_S_MAX = 60.0
STOP_S_MAX = 60.0
ASK_S_MAX = 30.0
START_ATTEMPTS_MAX = 3
PORT_IS_TAKEN = ("is the port taken?", "cannot serve metrics on")

SIM_MODEL: dict[str, Any] = {
    "pool": "gpu",
    "aliases": ["default"],
    "context": 262_144,
    "output": 65_536,
    "price": {"input": "0.20", "cached_input": "0.02", "output": "0.80"},
}
"""The model `sim` of `write_config`, unless it is given other models."""

PATIENT: dict[str, str | float] = {
    "redis_timeout_ms": 2_000,
    "key_lookup_timeout_ms": 2_000,
    "key_first_lookup_timeout_ms": 30_000,
    "ledger_open_hold_ms": 2_000,
}
"""Settings under which servers that are slow are not taken for away: a machine that runs tests is busy."""

AS_SHIPPED: dict[str, float] = {name: Settings.model_fields[name].default for name in PATIENT}
"""The same settings as the product has them, for tests about servers that are away."""


def write_config(
    path: Path,
    engines: Sequence[str],
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    pool: Mapping[str, Any] | None = None,
    pools: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    sign_in: Mapping[str, Any] | None = None,
) -> Path:
    """Write a penstock.yaml, in one step, and return its path.

    Args:
        path: where.
        engines: base URLs of the pool `gpu`.
        models: by name, as in the file; default: `sim`, also called `default`.
        pool: further options of the pool `gpu`, such as `concurrency` or `timeouts`.
        pools: further pools by name, as in the file.
        settings: the section `settings`.
        sign_in: the section `sign_in`.
    """
    document: dict[str, Any] = {
        "pools": {"gpu": {"engine": "vllm", "endpoints": list(engines), **(pool or {})}, **(pools or {})},
        "models": {name: dict(model) for name, model in (models or {"sim": SIM_MODEL}).items()},
    }
    if settings:
        document["settings"] = dict(settings)
    if sign_in:
        document["sign_in"] = dict(sign_in)
    written = path.with_name(f"{path.name}.new")
    written.write_text(yaml.safe_dump(document, sort_keys=False))
    written.replace(path)
    return path


class GatewayProcess:
    """`penstock serve` on free ports, as a context manager. `settings` are process settings by name, such as
    `redis_away_policy="deny"`, given through the environment and added to `PATIENT`. `python`, until it starts, is the
    interpreter to use."""

    def __init__(self, config: Path, postgres_dsn: str, redis_url: str, **settings: str | float) -> None:
        self.python = sys.executable
        own = {"postgres_dsn": postgres_dsn, "redis_url": redis_url, "spool_dir": str(config.with_name("spool"))}
        self._settings = own | PATIENT | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.config = config
        self.port = 0
        self.metrics_port = 0

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL that OpenAI's clients want: with `/v1`."""
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        """The process id. It must be running."""
        assert self._process is not None, "the gateway is not running"
        return self._process.pid

    @property
    def log(self) -> Path:
        """The file that holds its standard output and error."""
        return self.config.with_name(f"gateway-{self.port}.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.terminate()

    def http(self, key: str | None = None) -> Http:
        """Return a client of it that sends this key."""
        return Http(self.url, key)

    def start(self) -> None:
        """Start it on free ports and wait until it is ready. Raises AssertionError, with its log, when it is not."""
        for attempt in range(1, START_ATTEMPTS_MAX + 1):
            self._launch()
            try:
                wait_for(self._has_begun, "the gateway is ready", START_S_MAX)
            except BaseException:
                self.kill()
                raise
            if self._exit_code() is None:
                return
            self._process = None
            text = self.log.read_text()
            # Somebody else took the port between the question for a free one and its use.
            if attempt == START_ATTEMPTS_MAX or not any(sign in text for sign in PORT_IS_TAKEN):
                raise AssertionError(f"the gateway did not start:\n{text}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and do not wait."""
        assert self._process is not None, "the gateway is not running"
        self._process.send_signal(number)

    def terminate(self, timeout_s: float = STOP_S_MAX) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_S_MAX) -> int:
        """Wait for the end and return the exit code. Raises subprocess.TimeoutExpired, and then it was killed."""
        assert self._process is not None, "the gateway is not running"
        process, self._process = self._process, None
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def metrics(self) -> dict[str, float]:
        """Return the samples of its metrics: by bare name, summed over labels, and by name with labels as printed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=ASK_S_MAX)
        try:
            connection.request("GET", "/metrics")
            return sampled(connection.getresponse().read().decode())
        finally:
            connection.close()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return its log so far. Raises ValueError when a line is not JSON."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def log_of(self, request_id: str) -> list[dict[str, Any]]:
        """Return the log lines of one request."""
        return [line for line in self.log_lines() if line.get("request_id") == request_id]

    def _launch(self) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        variables = {f"PENSTOCK_{name.upper()}": str(value) for name, value in self._settings.items()}
        command = [self.python, "-m", "gateway", "serve", f"--config={self.config}", f"--port={self.port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--metrics-port={self.metrics_port}"],
                cwd=self.config.parent,
                env=Penstock(self.config.parent, variables).environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def _has_begun(self) -> bool:
        """Whether it is ready, or has ended."""
        if self._exit_code() is not None:
            return True
        try:
            return self.http().get("/readyz").status == 200
        except OSError:
            return False
