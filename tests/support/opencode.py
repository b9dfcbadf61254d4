"""The real OpenCode client, run in a folder of the caller's.

It sees no home, no configuration and no variable of whoever runs the tests, and needs no network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.npm import installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN_S_MAX = 60.0
EVENT_BYTES_MAX = 4 * 2**20
Event = dict[str, Any]


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


def program() -> Path:
    """Return OpenCode's executable, installed when it is not there yet. Raises NpmMissing."""
    return installed() / "node_modules" / "opencode-ai" / "bin" / "opencode.exe"


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
        config: its project's opencode.json, such as what `configuration` returned.
        timeout_s: after which it and what it started are killed, and `timed_out` is true.
        on_event: called with each event as it comes.
    """
    project = folder / "project"
    project.mkdir(parents=True, exist_ok=True)
    (project / "opencode.json").write_text(json.dumps(config, indent=2))
    outcome = OpenCodeRun()
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [program(), "run", "--format", "json", *arguments, message],
            cwd=project,
            env=opencode_environment(folder),
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


def opencode_environment(folder: Path) -> dict[str, str]:
    """Return an environment with nothing of the caller's but the PATH, at home in `folder/home`."""
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
