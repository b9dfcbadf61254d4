"""Many simulated engines in one process: each counts its own, all stop at once, and all ports are had or none."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.engine import EngineClient

ENGINES = 100
COMMAND = (sys.executable, "-m", "gateway.dev.engine", "--model=sim", "--ttft-ms=0")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[EngineClient]]]:
    """Run the command and yield its process and the engines that it says it serves, as soon as the last one is said."""
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(ENGINES)]
            ports = [int(found[1]) for line in said if (found := _ADDRESS.search(line))]
            yield process, [EngineClient(port) for port in ports]
        finally:
            process.kill()


def completion(engine: EngineClient, prompt: str, **fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "sim", "prompt": prompt, "max_tokens": 5} | fields).encode()
    answer: dict[str, Any] = json.loads(engine.ask("POST", "/v1/completions", body))
    return answer


def stream(engine: EngineClient, opened: ExitStack) -> http.client.HTTPResponse:
    """Start an answer that does not end in the time of a test."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=20)
    opened.callback(connection.close)
    fields = {"model": "sim", "prompt": "a", "max_tokens": 50_000, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(fields))
    return opened.enter_context(connection.getresponse())


def free_ports(count: int) -> int:
    """Return a port that is free together with the `count` - 1 after it."""
    for first in range(20_000, 32_000, count):
        with ExitStack() as bound:
            try:
                for port in range(first, first + count):
                    bound.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports in a row")


def run_to_end(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_a_hundred_engines_answer_and_each_counts_and_behaves_for_itself() -> None:
    with started(f"--engines={ENGINES}", "--port=0") as (_, engines):
        assert len({engine.port for engine in engines}) == ENGINES
        engines[7].control(output_tokens=3)
        for number, engine in enumerate(engines):
            for _ in range(1 + number % 3):
                usage = completion(engine, f"prompt {number} " * 20, max_tokens=5)["usage"]
            assert usage["completion_tokens"] == (3 if number == 7 else 5)
            # Its own cache: the prompts differ from one engine to the next, and the first time misses.
            assert (usage["prompt_tokens_details"]["cached_tokens"] > 0) == (number % 3 > 0)
        for number, engine in enumerate(engines):
            requests = 1 + number % 3
            counters = engine.counters()
            assert (counters["received"], counters["finished"]) == (requests, requests)
            assert counters["generated_tokens"] == requests * (3 if number == 7 else 5)
            assert engine.metrics()["vllm:generation_tokens_total"] == counters["generated_tokens"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_all_and_cuts_their_streams(number: signal.Signals) -> None:
    with (
        started(f"--engines={ENGINES}", "--port=0", "--tokens-per-second=50") as (process, engines),
        ExitStack() as opened,
    ):
        answers = [stream(engine, opened) for engine in engines[::10]]
        for engine in engines[::10]:
            engine.wait_for(lambda counters: counters["generated_tokens"] >= 1)
        process.send_signal(number)
        for answer in answers:
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
        process.wait(10)
        for engine in engines:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", engine.port), timeout=5)


def test_consecutive_ports_are_had_all_or_none_and_the_one_in_the_way_is_named() -> None:
    first = free_ports(ENGINES)
    with started(f"--engines={ENGINES}", f"--port={first}") as (_, engines):
        assert [engine.port for engine in engines] == list(range(first, first + ENGINES))
        assert completion(engines[-1], "a")["usage"]["completion_tokens"] == 5
    taken = first + ENGINES - 1
    with socket.create_server(("127.0.0.1", taken)):
        failed = run_to_end([f"--engines={ENGINES}", f"--port={first}"])
    assert (failed.returncode, failed.stdout, "Traceback" in failed.stderr) == (1, "", False)
    assert f"127.0.0.1:{taken}: Address already in use" in failed.stderr
    with socket.create_server(("127.0.0.1", first)):
        pass
    beyond = run_to_end(["--engines=3", "--port=65535"])
    assert (beyond.returncode, "127.0.0.1:65536: ports end at 65535" in beyond.stderr) == (1, True)


def test_sockets_may_be_handed_over_as_many_as_engines_are_wanted() -> None:
    with ExitStack() as opened:
        listeners = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        fds = [listener.fileno() for listener in listeners]
        process = opened.enter_context(subprocess.Popen([*COMMAND, *(f"--listen-fd={fd}" for fd in fds)], pass_fds=fds))
        opened.callback(process.kill)
        for count, listener in enumerate(listeners):
            engine = EngineClient(listener.getsockname()[1])
            for _ in range(count):
                completion(engine, "a")
            assert engine.counters()["finished"] == count
