"""The inference servers that these tests run: how each is installed, given a model, started and watched."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psutil

from gateway.dev.files import free_port
from tests.support.http import Http
from tests.support.source import REPOSITORY
from tests.support.venvs import Environment
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

CONTEXT = 32_768
START_S_MAX = 180.0
MODEL_S_MAX = 300.0
STOP_S_MAX = 30.0
INSTALL_S_MAX = 3600.0
TEXTS = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
"""What the model's tokenizer is trained on."""


class EngineMissing(Exception):
    """An engine cannot be installed; says what to do."""


@dataclass(frozen=True)
class Kind:
    """An inference server. `pool` is its pool in penstock.yaml, `ready` a path that answers 200 once it is,
    `arguments` those of Python for a model's folder and a port."""

    name: str
    environment: Environment
    effort: str
    compiles: bool
    model_maker: str
    arguments: Callable[[Path, int], tuple[str, ...]]
    upstream: Callable[[Path], str]
    ready: str
    pool: Mapping[str, Any]

    def prepare(self, say: Callable[[str], object]) -> None:
        """Install it where that was not done yet, and say so: it takes minutes. Raises EngineMissing."""
        if self.environment.is_made():
            return
        compiler = os.environ.get("CXX", "c++")
        if self.compiles and shutil.which(compiler) is None:
            raise EngineMissing(
                f"{self.name} is compiled here, and the compiler '{compiler}' is missing. Install one (Debian, Ubuntu:"
                " apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), or name it in CXX."
                " cmake and ninja come with the installation."
            )
        say(f"==> Installing {self.name} in {self.environment.folder}: {self.effort}")
        try:
            self.environment.python()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise EngineMissing(f"{self.name} could not be installed, pip says why above: {error}") from error


LLAMA_CPP = Kind(
    name="llama_cpp",
    environment=Environment(
        "llama-cpp",
        ("real-engine-build", "real-engine-llama-cpp"),
        options=("--no-build-isolation",),  # what builds it is pinned, too
        variables={
            # Speed is not what is tested: what costs time to compile is left out, and optimisation that takes long.
            "CMAKE_ARGS": "-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DCMAKE_C_FLAGS_RELEASE=-O1"
            " -DCMAKE_CXX_FLAGS_RELEASE=-O1",
            "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1)),
        },
        timeout_s=INSTALL_S_MAX,
        quiet=False,
    ),
    effort="llama.cpp is compiled, 7 minutes of one core; 300 MB",
    compiles=True,
    model_maker="tests.real_engine.tiny_gguf",
    arguments=lambda model, port: (
        *("-m", "llama_cpp.server", "--host=127.0.0.1", f"--port={port}", f"--n_ctx={CONTEXT}"),
        *(f"--model={model / 'tiny.gguf'}", "--model_alias=tiny"),
    ),
    upstream=lambda _model: "tiny",
    ready="/v1/models",
    # It has no /health, and serves one request at a time: a second one, be it for /v1/models, cuts a stream that runs.
    pool={"engine": "llamacpp", "health": {"path": "/openapi.json"}, "concurrency": 1},
)
TRANSFORMERS = Kind(
    name="transformers",
    environment=Environment(
        "transformers",
        ("real-engine-transformers",),
        options=("--no-deps",),  # triton is left out of the lock
        timeout_s=INSTALL_S_MAX,
        quiet=False,
    ),
    effort="torch with CUDA's libraries, which cannot be left out on Linux; 2 GB to download, 4.7 GB on the disk",
    compiles=False,
    model_maker="tests.real_engine.tiny_transformers",
    arguments=lambda model, port: (
        *("-m", "transformers.cli.transformers", "serve", str(model), "--host=127.0.0.1", f"--port={port}"),
        *("--device=cpu", "--log-level=info"),
    ),
    upstream=str,
    ready="/health",
    pool={"engine": "openai", "health": {"path": "/health"}},
)
KINDS = (LLAMA_CPP, TRANSFORMERS)


class RealEngine:
    """One server with a model of its own, in `folder`. A context manager."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.log = folder / f"{kind.name}.log"
        self._model = folder / "model"
        self._port = free_port()
        self._process: psutil.Popen | None = None

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def upstream(self) -> str:
        """What it calls its model."""
        return self.kind.upstream(self._model)

    @property
    def http(self) -> Http:
        """A client of it, past the gateway."""
        return Http(self.url)

    def __enter__(self) -> Self:
        python = str(self.kind.environment.python())
        self._model.mkdir()
        make = [python, "-m", self.kind.model_maker, str(self._model), *map(str, TEXTS)]
        subprocess.run(
            make, check=True, stdin=subprocess.DEVNULL, timeout=MODEL_S_MAX, env=_environment(), cwd=REPOSITORY
        )
        with self.log.open("wb") as log:
            self._process = psutil.Popen(
                [python, *self.kind.arguments(self._model, self._port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
        try:
            wait_for(self._is_ready, f"{self.kind.name} is ready", START_S_MAX)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has used."""
        assert self._process is not None, "the engine is not running"
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.kind.name} did not start:\n{self.log.read_text()}")
        try:
            return self.http.get(self.kind.ready).status == 200
        except OSError:
            return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    """Return variables that keep every library from the network, and from what the user has of its caches."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
