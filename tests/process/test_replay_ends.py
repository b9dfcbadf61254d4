"""`penstock engine replay` ends when it should, whatever the server does, and says what was left unfinished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Outcome, Penstock
from tests.support.engine import EngineProcess
from tests.support.interrupts import interrupts_heard
from tests.support.scripted import Script, ScriptedEngine, json_script, stream_script
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSIONS = 3
# A replay that does not end of itself is killed after this: ten times as long as it is told to go on, and to start.
END_S_MAX = 30.0


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("sim") as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


def command(url: str, *arguments: str) -> tuple[str, ...]:
    pace = ("--speed", "100000", "--sessions", str(SESSIONS), "--output-scale", "0.01")
    return ("engine", "replay", "--base-url", f"{url}/v1", "--model", "sim", *pace, *arguments)


@contextmanager
def running(
    tmp_path: Path, url: str, *arguments: str, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """A replay under way."""
    with interrupts_heard():
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *command(url, *arguments)],
            env=Penstock(tmp_path, {}).environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("fault", [{"stall_after_chunks": 1}, {"half_open_after_chunks": 1}, {"delay_ms": 60_000}])
def test_its_time_is_up_also_for_answers_that_never_end(
    tmp_path: Path, fault: dict[str, float], engine: EngineProcess
) -> None:
    engine.control(**fault)
    try:
        with running(tmp_path, engine.url, "--duration", "1", "--json") as process:
            out, err = process.communicate(timeout=END_S_MAX)
    finally:
        engine.control(**dict.fromkeys(fault))
    report = json.loads(out)
    assert (report["requests"], report["answered"], report["unfinished"]) == (0, 0, SESSIONS)
    assert (process.returncode, err) == (1, "error: nothing was answered\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_the_report(
    engine: EngineProcess, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    before = engine.counters()["finished"]
    with running(tmp_path, engine.url, "--json") as process:
        engine.wait_for(lambda counters: counters["finished"] > before + 20, timeout_s=30)
        process.send_signal(number)
        out, _ = process.communicate(timeout=END_S_MAX)
    report = json.loads(out)
    assert (process.returncode, report["interrupted"]) == (code, True)
    assert report["answered"] > 20 - SESSIONS, "of each session one answer may be on its way"


def test_what_a_signal_cut_off_is_unfinished(engine: EngineProcess, tmp_path: Path) -> None:
    engine.control(stall_after_chunks=1)
    try:
        with running(tmp_path, engine.url, "--duration", "60") as process:
            engine.wait_for(lambda counters: counters["running"] == SESSIONS, timeout_s=30)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=END_S_MAX)
    finally:
        engine.control(stall_after_chunks=None)
    assert process.returncode == 130
    assert out.partition("unfinished at the end")[2].split()[0] == str(SESSIONS)


def test_a_second_interrupt_ends_it_at_once(engine: EngineProcess, tmp_path: Path) -> None:
    """After the first one it cannot end of itself: its report goes to a full pipe that nobody reads."""
    reader, full = full_pipe()
    before = engine.counters()["finished"]
    try:
        with running(tmp_path, engine.url, "--json", stdout=full) as process:
            engine.wait_for(lambda counters: counters["finished"] > before + 5, timeout_s=30)
            wait_for(lambda: interrupted_again(process), "the second interrupt ends it", END_S_MAX)
    finally:
        os.close(reader)
        os.close(full)
    assert process.returncode == 130


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that takes no byte more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b" " * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def interrupted_again(process: subprocess.Popen[str]) -> bool:
    """Send the signal, and return whether the process has ended."""
    process.send_signal(signal.SIGINT)
    return process.poll() is not None


def test_waiting_is_counted_as_long_as_it_was(scripted: ScriptedEngine, tmp_path: Path) -> None:
    scripted.script = json_script({"error": {"message": "tomorrow"}}, 429, retry_after="86400")
    done = Penstock(tmp_path, {})(*command(scripted.url, "--duration", "1", "--json"))
    report = json.loads(done.out)
    assert (done.code, report["errors"], report["unfinished"]) == (1, {"429": SESSIONS}, 0)
    assert 0 < report["waited_s"] <= SESSIONS * report["elapsed_s"]


def test_a_stream_may_end_without_done(scripted: ScriptedEngine, tmp_path: Path) -> None:
    scripted.script = stream_script({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})
    report = Penstock(tmp_path, {})(*command(scripted.url, "--requests", "4", "--json")).document
    assert (report["answered"], report["without_done"], report["errors"]) == (4, 4, {})


HTML = Script((b"<html>Welcome</html>",), headers={"content-type": "text/html"})


@pytest.mark.parametrize(
    ("script", "streamed", "said"),
    [
        (json_script({"error": {"message": "n\x1b[2Jo"}}, 405), "--stream", "OpenAI-compatible"),
        (
            json_script({}, 308, location="https://there.example/v1"),
            "--stream",
            "(308) to https://there.example",
        ),
        (HTML, "--stream", "text/html in place of text/event-stream"),
        (HTML, "--no-stream", "text/html in place of application/json"),
        (json_script({"ok": True}), "--no-stream", "OpenAI-compatible"),
        (stream_script("hello"), "--stream", "OpenAI-compatible"),
    ],
)
def test_another_kind_of_server_is_left_alone_at_once(
    scripted: ScriptedEngine, tmp_path: Path, script: Script, streamed: str, said: str
) -> None:
    scripted.script = script
    done: Outcome = Penstock(tmp_path, {})(*command(scripted.url, streamed, "--requests", "500"))
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert "\x1b" not in done.err
    assert len(scripted.bodies) <= SESSIONS
