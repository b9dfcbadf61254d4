"""The simulated engine as a process: hang-ups, turns, bad requests on the wire, signals, restarts."""

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.support.engine import EngineProcess

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with EngineProcess(ttft_ms=0, tokens_per_second=50, output_tokens=100_000, max_num_seqs=2) as running:
        yield running


def ask(engine: EngineProcess, **fields: Any) -> socket.socket:
    """Send a chat completion by hand and return its connection, with nothing read yet."""
    body = json.dumps({"model": "sim", "messages": MESSAGES, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", engine.port), timeout=10)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)
    return connection


def answer_to(engine: EngineProcess, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_a_hang_up_stops_the_generation(engine: EngineProcess, *, stream: bool, reset: bool) -> None:
    connection = ask(engine, stream=stream)
    engine.wait_for(lambda counters: counters["generated_tokens"] >= 3)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    engine.wait_for(lambda counters: counters["aborted"] == 1)
    state = engine.state()
    assert (state["running"], state["kv_tokens"], state["finished"], state["failed"]) == (0, 0, 0, 0)
    record = state["requests"][-1]
    assert (record["outcome"], record["generated_tokens"]) == ("aborted", state["generated_tokens"])
    metrics = engine.metrics()
    assert metrics["vllm:generation_tokens_total"] == state["generated_tokens"] < 100_000
    assert metrics['vllm:request_success_total{engine="0",finished_reason="abort",model_name="sim"}'] == 1


def test_a_hang_up_while_waiting_frees_its_turn(engine: EngineProcess) -> None:
    running = [ask(engine, stream=True) for _ in range(2)]
    engine.wait_for(lambda counters: counters["running"] == 2)
    waiting = [ask(engine, stream=True) for _ in range(2)]
    engine.wait_for(lambda counters: counters["waiting"] == 2)
    metrics = engine.metrics()
    assert (metrics["vllm:num_requests_running"], metrics["vllm:num_requests_waiting"]) == (2, 2)
    assert metrics["vllm:kv_cache_usage_perc"] > 0
    waiting[0].close()
    engine.wait_for(lambda counters: counters["waiting"] == 1)
    running[0].close()
    engine.wait_for(lambda counters: counters["waiting"] == 0 and counters["running"] == 2)
    for connection in (running[1], waiting[1]):
        connection.close()
    engine.wait_for(lambda counters: counters["aborted"] == 4 and counters["running"] == 0)


def test_a_reader_that_stalls_holds_the_stream_until_it_hangs_up(engine: EngineProcess) -> None:
    engine.control(tokens_per_second=0, output_tokens=200_000)
    connection = ask(engine, stream=True)
    # A stream that can go on generates tokens in every turn of the loop, so also between two questions.
    before, now = -1, 0
    while now == 0 or now != before:
        before, now = now, engine.counters()["generated_tokens"]
    assert now < 200_000
    connection.close()
    engine.wait_for(lambda counters: counters["aborted"] == 1 and counters["running"] == 0)


def test_a_reset_is_a_reset_and_not_an_end(engine: EngineProcess) -> None:
    with ask(engine, stream=True, sim={"abort_after_chunks": 2}) as connection:
        received = b""
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - what came before the reset is read first
            while True:
                piece = connection.recv(65_536)
                assert piece, "ended in peace"
                received += piece
    assert received.count(b"data: ") == 2
    assert engine.counters()["failed"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model": "sim"}', 400),
        ("POST", "/v1/completions", b'{"model": "sim", "prompt": "a", "echo": true}', 400),
        ("POST", "/v1/completions", b'{"model": "sim", "prompt": ["a", "b"], "n": 128}', 400),
        ("POST", "/v1/embeddings", b'{"model": "sim", "input": []}', 400),
        ("POST", "/v1/embeddings", b'{"model": "sim", "input": "a", "encoding_format": "x"}', 400),
        ("POST", "/v1/responses", b'{"model": "sim", "input": []}', 400),
        ("POST", "/tokenize", b"{}", 400),
        ("POST", "/sim/control", b'{"teapot": 1}', 400),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
    ],
)
def test_a_bad_request_gets_an_error_and_no_traceback(
    engine: EngineProcess, method: str, path: str, body: bytes | None, status: int
) -> None:
    answered, shown = answer_to(engine, method, path, body)
    assert answered == status
    assert set(shown["error"]) == {"message", "type", "param", "code"}


def test_a_conversation_without_any_content_is_refused(engine: EngineProcess) -> None:
    body = b'{"model": "sim", "max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "text"}]}]}'
    status, answer = answer_to(engine, "POST", "/v1/messages", body)
    assert (status, answer["error"]["type"]) == (400, "BadRequestError")


def test_a_body_over_the_bound_is_refused_and_a_broken_one_forgotten(engine: EngineProcess) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=30) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nhost: x\r\ncontent-length: 80000000\r\n\r\n")
        piece = b"x" * 1_000_000
        for _ in range(80):
            try:
                connection.sendall(piece)
            except OSError:
                break
        assert connection.recv(12) == b"HTTP/1.1 413"
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    assert engine.counters()["received"] == 0


def test_sigterm_cuts_streams_and_a_restart_keeps_the_port(engine: EngineProcess) -> None:
    port = engine.port
    with ask(engine, stream=True) as connection:
        engine.wait_for(lambda counters: counters["generated_tokens"] >= 1)
        engine.stop()
        received = b""
        while piece := connection.recv(65_536):
            received += piece
        assert b"[DONE]" not in received
        assert not received.endswith(b"0\r\n\r\n"), "a cut stream must not look finished"
    engine.start()
    assert engine.port == port
    assert engine.counters()["received"] == 0


def test_the_command_says_where_it_serves_and_that_a_port_is_taken(engine: EngineProcess) -> None:
    command = [
        sys.executable,
        "-m",
        "gateway.dev.engine",
        "--served-model-name",
        "first",
        "--model",
        "second",
        "--port",
    ]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
        finally:
            process.terminate()
    assert "http://127.0.0.1:" in said
    assert "first, second" in said
    failed = subprocess.run([*command, str(engine.port)], capture_output=True, text=True, timeout=30, check=False)
    assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)
    assert str(engine.port) in failed.stderr


def test_an_engine_that_cannot_start_is_an_error_of_its_test() -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        EngineProcess(no_such_option=1).start()
