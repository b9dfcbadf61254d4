"""`penstock dev` as a person uses it: start, ask, Ctrl-C, start again, and everything that may go wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from gateway.dev.files import free_port
from gateway.dev.stack import answers
from tests.support.process_ids import descendants, left_after
from tests.support.servers import reachable_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

    from gateway.dev.children import RunningServer

ROOT = Path(__file__).parents[2]
END_S_MAX = 60
READY = "Ctrl-C stops everything"


class Dev:
    """One `penstock dev`, started the way a terminal does: in a process group of its own."""

    def __init__(self, data_dir: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self.data_dir = data_dir
        self.screen = ""
        argv = [sys.executable, "-m", "gateway", "dev", "--data-dir", str(data_dir), *arguments]
        self._process = subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, process_group=0
        )
        self._family: list[psutil.Process] = []

    @property
    def info(self) -> dict[str, Any]:
        """What scripts are told."""
        told: dict[str, Any] = json.loads((self.data_dir / "dev.json").read_text())
        return told

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Read the screen until it says how to use what runs."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.screen += line
            if READY in line:
                self._family = descendants(self.pid)
                return
        pytest.fail(f"penstock dev ended before it was ready:\n{self.screen}")

    def child(self, *words: str) -> psutil.Process:
        """Return the descendant whose command line has these words."""
        found = [each for each in descendants(self.pid) if set(words) <= set(each.cmdline())]
        assert len(found) == 1
        return found[0]

    def signal_terminal(self, number: signal.Signals) -> None:
        """Send a signal to the process group in the foreground, as a terminal does."""
        os.killpg(self.pid, number)

    def end(self) -> int:
        """Wait for the end, however it came, and return the exit code. Nothing may be left running."""
        rest, _ = self._process.communicate(timeout=END_S_MAX)
        self.screen += rest
        assert left_after(self._family, END_S_MAX) == []
        return self._process.returncode

    def kill(self) -> None:
        """Kill it where it stands."""
        self._process.kill()


@contextmanager
def started(data_dir: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[Dev]:
    """Yield a `penstock dev` that may or may not get ready; killed at the end at the latest."""
    dev = Dev(data_dir, *arguments, stdin=stdin)
    try:
        yield dev
    finally:
        dev.kill()
        dev.end()


@contextmanager
def ready(data_dir: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[Dev]:
    """Yield a `penstock dev` that is ready, on a free port unless told otherwise."""
    port = () if "--port" in arguments else ("--port", str(free_port()))
    with started(data_dir, *port, *arguments, stdin=stdin) as dev:
        dev.wait_until_ready()
        yield dev


def ask(info: dict[str, Any]) -> ChatCompletion:
    """Send one chat completion with the demo key and return the answer."""
    with OpenAI(base_url=info["base_url"], api_key=info["api_key"], max_retries=0, timeout=30) as client:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
        return client.chat.completions.create(model="default", messages=messages, max_tokens=8)


def requests_in_ledger(dev: Dev) -> int:
    """Return how many requests `penstock usage` knows of, closed ones."""
    argv = [sys.executable, "-m", "gateway", "usage", "--postgres-dsn", dev.info["postgres_dsn"], "--json"]
    rows = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    return sum(row["requests"] for row in rows)


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """A `penstock dev` that tests share which change nothing of it."""
    with reachable_directory() as folder, ready(folder / "data") as process:
        yield process


def test_scripts_find_everything_in_dev_json(dev: Dev) -> None:
    info = dev.info
    file = dev.data_dir / "dev.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert info.keys() == {
        *("base_url", "admin_key", "api_key", "metrics_url", "postgres_dsn", "redis_url", "config", "engines", "pid")
    }
    assert info["base_url"].endswith("/v1")
    assert info["pid"] == dev.pid
    assert len(info["engines"]) == 2
    assert Path(info["config"]) == dev.data_dir / "penstock.yaml"
    for url in (info["metrics_url"], *(f"{engine}/health" for engine in info["engines"])):
        assert answers(urlsplit(url).port or 0, urlsplit(url).path)


def test_a_request_is_answered(dev: Dev) -> None:
    answer = ask(dev.info)
    assert answer.model == "default"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_the_curl_line_on_the_screen_works_when_pasted(dev: Dev) -> None:
    lines = [line for line in dev.screen.splitlines() if line.startswith("curl ")]
    assert len(lines) == 1
    assert shutil.which("curl"), "curl is needed for this test: apt-get install curl"
    done = subprocess.run(["sh", "-c", f"{lines[0]} -sS --max-time 30"], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_the_opencode_json_on_the_screen_is_json(dev: Dev) -> None:
    text = dev.screen[dev.screen.index("\n{") : dev.screen.index("\n}") + 2]
    assert json.loads(text)["provider"]["penstock"]["options"]["apiKey"] == dev.info["api_key"]


def test_keys_are_in_no_log_and_no_command_line(dev: Dev) -> None:
    ask(dev.info)
    secrets = [dev.info[name] for name in ("api_key", "admin_key", "postgres_dsn", "redis_url")]
    seen = [path.read_text() for path in (dev.data_dir / "logs").iterdir()]
    seen += [shlex.join(each.cmdline()) for each in descendants(dev.pid)]
    assert not [text for text in seen if any(secret in text for secret in secrets)]


def test_a_second_one_on_the_same_folder_is_refused(dev: Dev) -> None:
    with started(dev.data_dir, "--port", str(free_port())) as second:
        assert second.end() == 1
        assert f"another `penstock dev` (process {dev.pid}) uses {dev.data_dir}" in second.screen
    assert ask(dev.info)


def test_a_taken_port_is_named(dev: Dev, reachable_dir: Path) -> None:
    port = dev.info["base_url"].rpartition(":")[2].removesuffix("/v1")
    with started(reachable_dir / "other", "--port", port) as other:
        assert other.end() == 1
        assert f"port {port} is in use" in other.screen
        assert "--port" in other.screen


def test_ctrl_c_stops_everything_and_the_next_start_has_the_same_data(reachable_dir: Path) -> None:
    port = str(free_port())
    with ready(reachable_dir, "--port", port, "--engines", "1") as first:
        before = first.info
        ask(before)
        first.signal_terminal(signal.SIGINT)
        assert first.end() == 0
        assert not (reachable_dir / "dev.json").exists()
        assert "error" not in first.screen
    with ready(reachable_dir, "--port", port, "--engines", "1") as second:
        assert second.info | {"pid": 0} == before | {"pid": 0}
        assert requests_in_ledger(second) == 1
        ask(second.info)
        second.signal_terminal(signal.SIGHUP)
        assert second.end() == 0


def test_kill_9_leaves_no_process_and_loses_nothing(reachable_dir: Path) -> None:
    port = str(free_port())
    with ready(reachable_dir, "--port", port) as first:
        before = first.info
        ask(before)
        first.kill()
        assert first.end() == -signal.SIGKILL
    with ready(reachable_dir, "--port", port, "--auth", "none") as second:
        assert (second.info | {"pid": 0}, requests_in_ledger(second)) == (before | {"pid": 0}, 1)
        assert ask(second.info | {"api_key": "none"}), "nobody needs a key"
        second.signal_terminal(signal.SIGTERM)
        assert second.end() == 0


def test_a_killed_one_can_be_started_again_at_once(reachable_dir: Path) -> None:
    """While the parts of the killed one still end."""
    port = str(free_port())
    with ready(reachable_dir, "--port", port) as first:
        os.kill(first.pid, signal.SIGKILL)
        with ready(reachable_dir, "--port", port) as second:
            assert second.info | {"pid": 0} == first.info | {"pid": 0}
            assert ask(second.info)


def test_a_gateway_that_ends_is_reported_and_ends_the_rest(reachable_dir: Path) -> None:
    with ready(reachable_dir, "--engines", "1") as dev:
        dev.child("serve").kill()
        assert dev.end() == 1
        assert f"error: gateway ended with exit code -9; the end of {reachable_dir}/logs/gateway.log" in dev.screen


def test_an_engine_that_ends_is_reported_and_the_others_serve_on(reachable_dir: Path) -> None:
    with ready(reachable_dir, "--engines", "2") as dev:
        dev.child("engine", dev.info["engines"][0].rpartition(":")[2]).kill()
        for _ in range(4):
            assert ask(dev.info)
        dev.signal_terminal(signal.SIGINT)
        assert dev.end() == 0
        assert "ended with exit code -9; the gateway goes on without it" in dev.screen


def test_a_closed_terminal_stops_everything_even_without_a_signal(reachable_dir: Path) -> None:
    outer, inner = os.openpty()
    try:
        with ready(reachable_dir, "--engines", "1", stdin=inner) as dev:
            os.close(outer)
            assert dev.end() == 0
    finally:
        os.close(inner)


def test_ctrl_c_while_it_starts_leaves_nothing(reachable_dir: Path) -> None:
    with started(reachable_dir, "--port", str(free_port())) as dev:
        assert dev._process.stdout is not None
        for line in dev._process.stdout:
            if "PostgreSQL" in line:
                break
        dev._family = descendants(dev.pid)
        dev.signal_terminal(signal.SIGINT)
        assert dev.end() == 130


def test_servers_that_the_environment_names_are_used(
    reachable_dir: Path, own_postgres: RunningServer, own_redis: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", own_postgres.address)
    monkeypatch.setenv("PENSTOCK_POSTGRES_DIRECT_DSN", own_postgres.address)
    monkeypatch.setenv("PENSTOCK_REDIS_URL", own_redis.address)
    with ready(reachable_dir, "--engines", "1") as dev:
        assert (dev.info["postgres_dsn"], dev.info["redis_url"]) == (own_postgres.address, own_redis.address)
        assert f"PostgreSQL at {own_postgres.address.rpartition('@')[2].partition('/')[0]}" in dev.screen
        assert ask(dev.info)
        assert not (reachable_dir / "postgres").exists()
        dev.signal_terminal(signal.SIGINT)
        assert dev.end() == 0
    assert own_postgres.child.poll() is None


def test_peppers_that_cannot_be_read_are_named(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEY_PEPPERS", "1:not-base64!")
    with started(reachable_dir, "--port", str(free_port())) as dev:
        assert dev.end() == 1
        assert "error: PENSTOCK_KEY_PEPPERS: pepper 1 is not base64" in dev.screen


def test_an_edited_configuration_with_a_mistake_is_shown_with_its_line(reachable_dir: Path) -> None:
    (reachable_dir / "penstock.yaml").write_text("pools: {}\n")
    with started(reachable_dir, "--port", str(free_port())) as dev:
        assert dev.end() == 1
        assert f"error: {reachable_dir}/penstock.yaml:1:" in dev.screen
        assert not (reachable_dir / "logs").exists(), "nothing was started"
