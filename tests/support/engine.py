"""The simulated engine as a process of its own, for tests: start, ask, change, kill, start again.

The listening socket is made here and handed to the child, so that the port cannot be lost to anybody and a request made
before the server is up waits in its backlog.
"""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import wait_for

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 30.0

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(\{[^}]*\})? (\S+)", re.MULTILINE)


def sampled(page: str) -> dict[str, float]:
    """Return the samples of a Prometheus page: by bare name, summed over labels, and by name with labels as printed."""
    samples: dict[str, float] = {}
    for name, labels, value in _SAMPLE.findall(page):
        samples[name] = samples.get(name, 0.0) + float(value)
        if labels:
            samples[name + labels] = float(value)
    return samples


class EngineClient:
    """What tests ask an engine that serves on `port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    def state(self) -> dict[str, Any]:
        """Return `/sim/state`: counters, behaviour, and `requests` (the last 64, oldest first)."""
        answer: dict[str, Any] = json.loads(self.ask("GET", "/sim/state"))
        return answer

    def counters(self) -> dict[str, Any]:
        """Return `/sim/counters`: received, finished, failed, aborted, running, waiting, generated_tokens …"""
        answer: dict[str, Any] = json.loads(self.ask("GET", "/sim/counters"))
        return answer

    def control(self, **options: float | str | bool | None) -> dict[str, Any]:
        """Set options for all later requests (`None`: as at the start) and return all that hold now."""
        answer: dict[str, Any] = json.loads(self.ask("POST", "/sim/control", json.dumps(options).encode()))
        return answer

    def metrics(self) -> dict[str, float]:
        """Return the samples of /metrics: by bare name, summed over labels, and by name with its labels as printed."""
        return sampled(self.ask("GET", "/metrics").decode())

    def wait_for(self, met: Callable[[dict[str, Any]], bool], timeout_s: float = 5.0) -> dict[str, Any]:
        """Return the first counters for which `met` holds. Raises AssertionError after `timeout_s`.

        Blocks the thread: in a coroutine, call it through `asyncio.to_thread`.
        """
        seen: list[dict[str, Any]] = []

        def arrived() -> bool:
            seen[:] = [self.counters()]
            return met(seen[0])

        try:
            wait_for(arrived, "the engine's counters are as expected", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}") from None
        return seen[0]

    def ask(self, method: str, path: str, body: bytes | None = None, timeout_s: float = ASK_TIMEOUT_S) -> bytes:
        """Return the body of the answer. Raises RuntimeError when it is not a 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode('utf-8', 'replace')}")
        return answer


class EngineProcess(EngineClient):
    """`python -m gateway.dev.engine` on a port of its own, as a context manager.

    Flat out by default (no time to first token, no pace): give `ttft_ms`, `tokens_per_second` and other command-line
    options by name (`max_num_seqs=2`), here or later through `control`. `port` 0 takes a free one, which is kept over
    `kill` and `start`.
    """

    def __init__(self, *models: str, port: int = 0, **options: float | str | bool) -> None:
        super().__init__(port)
        self._models = models or ("sim",)
        self._options: dict[str, float | str | bool] = {"ttft_ms": 0, "tokens_per_second": 0} | options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The names it serves."""
        return self._models

    @property
    def pid(self) -> int:
        """The process id. It must be running."""
        assert self._process is not None, "the engine is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self._process is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until /health answers. Raises RuntimeError when it does not."""
        assert self._process is None, "the engine is running already"
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(512)
            self.port = listener.getsockname()[1]
            arguments = [f"--listen-fd={listener.fileno()}", *self._arguments()]
            command = [sys.executable, "-m", "gateway.dev.engine", *arguments]
            self._process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            self.ask("GET", "/health", timeout_s=START_TIMEOUT_S)
        except OSError as error:
            self.kill()
            raise RuntimeError(f"the engine did not start: {command}") from error

    def stop(self) -> int | None:
        """Send SIGTERM and wait; return the exit code, `None` when it was not running."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL and wait: every connection breaks at once."""
        self._end(signal.SIGKILL)

    def _arguments(self) -> list[str]:
        arguments = [f"--model={model}" for model in self._models]
        for name, value in self._options.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                arguments.append(f"--{option}" if value else f"--no-{option}")
            else:
                arguments.append(f"--{option}={value}")
        return arguments

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
