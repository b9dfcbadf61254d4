"""The screen: lines to be pasted come out whole, in a narrow terminal and in a pipe."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

from rich.console import Console

from gateway.dev.options import DevInfo
from gateway.dev.screen import Screen, curl_line, opencode_json
from gateway.dev.stack import Stack

INFO = DevInfo(
    base_url="http://127.0.0.1:8080/v1",
    admin_key="adm-pst-x",
    api_key="sk-pst-0123456789abcdef_" + "s" * 38,
    metrics_url="http://127.0.0.1:9464/metrics",
    postgres_dsn="postgresql://penstock:secret@127.0.0.1:5432/penstock",
    redis_url="redis://:secret@127.0.0.1:6379/0",
    config="/data/penstock.yaml",
    engines=["http://127.0.0.1:8001"],
    pid=1,
)


class ClosedTerminal(io.StringIO):
    """A terminal that was closed: writing to it fails."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def shown(*, ours: bool, **console: object) -> str:
    """Return what a console of some kind shows when everything is ready."""
    output = io.StringIO()
    screen = Screen(Console(file=output, width=40, **console), Console(stderr=True))  # type: ignore[arg-type]  # passed through
    with screen.step("Doing something"):
        pass
    screen.ready(Stack(INFO, ours, ()), elapsed_s=1.25, logs=Path("/data/logs"))
    return output.getvalue()


def test_a_pipe_gets_plain_unfolded_text() -> None:
    text = shown(ours=True)
    assert "\x1b" not in text
    assert "✓ Doing something" in text
    assert curl_line(INFO) in text.splitlines()
    assert opencode_json(INFO) in text
    for value in (INFO.base_url, INFO.api_key, INFO.metrics_url, INFO.config):
        assert value in text
    assert "secret" not in text
    assert "edited by you" not in text


def test_a_terminal_gets_colour_and_the_same_lines() -> None:
    text = shown(ours=False, force_terminal=True, color_system="standard")
    assert "\x1b[" in text
    assert curl_line(INFO) in text
    assert "edited by you" in text


def test_a_database_outside_of_the_data_directory_is_pointed_out() -> None:
    output = io.StringIO()
    screen = Screen(Console(file=output), Console(file=output))
    for data in (Path("/data/postgres/data"), Path("/var/lib/penstock-dev/data-1/data")):
        screen.ready(Stack(INFO, True, (), data), elapsed_s=1.25, logs=Path("/data/logs"))
    assert output.getvalue().count("Database ") == 1


def test_errors_go_to_a_console_of_their_own() -> None:
    output, errors = io.StringIO(), io.StringIO()
    Screen(Console(file=output), Console(file=errors)).fail(ValueError("[red] is taken"))
    assert (output.getvalue(), errors.getvalue()) == ("", "error: [red] is taken\n")


def test_a_closed_terminal_is_no_reason_to_fail() -> None:
    screen = Screen(Console(file=ClosedTerminal()), Console(file=ClosedTerminal()))
    screen.say("Stopping …")
    screen.ready(Stack(INFO, True, ()), elapsed_s=1.25, logs=Path("/data/logs"))


def test_the_curl_line_is_one_shell_command() -> None:
    line = curl_line(INFO)
    assert "\n" not in line
    program, *arguments = shlex.split(line)
    assert (program, arguments[1]) == ("curl", "http://127.0.0.1:8080/v1/chat/completions")
    assert f"Authorization: Bearer {INFO.api_key}" in arguments
    assert json.loads(arguments[-1])["model"] == "qwen-coder"


def test_opencode_is_told_the_address_the_key_and_the_limits() -> None:
    document = json.loads(opencode_json(INFO))
    provider = document["provider"]["penstock"]
    assert provider["npm"] == "@ai-sdk/openai-compatible"
    assert provider["options"] == {"baseURL": INFO.base_url, "apiKey": INFO.api_key}
    assert provider["models"]["qwen-coder"]["limit"] == {"context": 262_144, "output": 65_536}
    assert document["model"] == "penstock/qwen-coder"
