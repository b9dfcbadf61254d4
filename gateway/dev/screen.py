"""What `penstock dev` shows: progress while it starts, then how to use what runs.

In a terminal with colour and a spinner, elsewhere as plain lines. Lines to be pasted are never folded.
"""

from __future__ import annotations

import json
import shlex
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from rich.rule import Rule
from rich.text import Text

from gateway.dev.demo_config import CONTEXT_TOKENS, MODEL, OUTPUT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from gateway.dev.options import DevInfo
    from gateway.dev.stack import Stack


class Screen:
    """Writes to a Rich console, errors to another; a terminal that was closed meanwhile is no reason to fail."""

    def __init__(self, console: Console, errors: Console) -> None:
        self._console = console
        self._errors = errors

    @contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Show that something is under way, and when it is done how long it took."""
        started_s = time.monotonic()
        with self._console.status(f"{doing} …") if self._console.is_terminal else nullcontext():
            yield
        self.say(f"  ✓ {doing} ({time.monotonic() - started_s:.1f} s)", style="green")

    def say(self, line: str, *, style: str = "") -> None:
        """Write one line as it is."""
        with suppress(OSError):
            self._console.print(Text(line, style=style), soft_wrap=True, highlight=False)

    def fail(self, error: BaseException) -> None:
        """Say why it ends."""
        with suppress(OSError):
            self._errors.print(Text(f"error: {error}", style="red"), soft_wrap=True, highlight=False)

    def ready(self, running: Stack, *, elapsed_s: float, logs: Path) -> None:
        """Show how to use what runs."""
        info = running.info
        heading = f"Penstock is ready ({elapsed_s:.1f} s)"
        with suppress(OSError):
            self._console.print(Rule(heading, style="green") if self._console.is_terminal else f"\n{heading}")
        self.say(f"  Base URL   {info.base_url}", style="bold")
        unneeded = "" if running.needs_key else " (any other will do, or none: all is used by the organization local)"
        self.say(f"  API key    {info.api_key}{unneeded}", style="bold")
        self.say(f"  Model      {MODEL} (also: default)")
        self.say(f"  Metrics    {info.metrics_url}")
        self.say(f"  Engines    {', '.join(info.engines)}")
        edited = "" if running.config_is_ours else " (edited by you: left as it is, its engines too)"
        self.say(f"  Config     {info.config}{edited}")
        self.say(f"  Logs       {logs}")
        if running.postgres_data and not running.postgres_data.is_relative_to(logs.parent):
            self.say(f"  Database   {running.postgres_data} (PostgreSQL's account cannot reach the data directory)")
        self.say("\nTry it:\n")
        self.say(curl_line(info), style="cyan")
        self.say("\nFor OpenCode, as opencode.json in a project:\n")
        self.say(opencode_json(info), style="cyan")
        self.say("\nCtrl-C stops everything; the data stays.")


def curl_line(info: DevInfo) -> str:
    """Return a shell command that asks the model something and streams the answer."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    command = [
        *("curl", "-N", f"{info.base_url}/chat/completions"),
        *("-H", f"Authorization: Bearer {info.api_key}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps(body)),
    ]
    return shlex.join(command)


def opencode_json(info: DevInfo) -> str:
    """Return an opencode.json that makes OpenCode talk to the gateway."""
    model = {"name": "Qwen3 Coder", "limit": {"context": CONTEXT_TOKENS, "output": OUTPUT_TOKENS}, "tool_call": True}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Penstock",
        "options": {"baseURL": info.base_url, "apiKey": info.api_key},
        "models": {MODEL: model},
    }
    name = f"penstock/{MODEL}"
    document = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"penstock": provider},
        "model": name,
        "small_model": name,
    }
    return json.dumps(document, indent=2)
