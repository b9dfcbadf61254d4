"""The simulated engine as a person drives it: what control answers, how it is undone, what is too much to ask."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.support.engine import EngineProcess

CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess(output_tokens=12) as running:
        yield running


def ask(engine: EngineProcess, method: str, path: str, body: Any = None) -> tuple[int, Any, str | None]:
    """Return the status, the answer and its `Allow`."""
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.getheader("allow")
    finally:
        connection.close()


def test_what_is_pending_is_shown_and_undone(engine: EngineProcess) -> None:
    engine.control(output_tokens=5)
    set_now = engine.control(times=2, status=500)
    assert (set_now["status"], set_now["times_left"], set_now["times_options"]) == (500, 2, {"status": 500})
    assert ask(engine, "POST", "/v1/chat/completions", CHAT)[0] == 500
    still = engine.control(status=None)
    assert (still["status"], still["times_left"]) == (500, 1)
    state = engine.state()
    assert (state["times_left"], state["times_options"]) == (1, {"status": 500})
    status, told, _ = ask(engine, "GET", "/sim/control")
    assert (status, told) == (200, still)
    status, back, _ = ask(engine, "DELETE", "/sim/control")
    assert (status, back["status"], back["output_tokens"]) == (200, None, 12)
    assert (back["times_left"], back["times_options"]) == (0, None)
    assert ask(engine, "POST", "/v1/chat/completions", CHAT)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/sim/control", "GET, POST, DELETE"), ("GET", "/v1/chat/completions", "POST"), ("POST", "/health", "GET")],
)
def test_a_wrong_method_is_told_the_right_ones(engine: EngineProcess, method: str, path: str, allow: str) -> None:
    status, answer, allowed = ask(engine, method, path)
    assert (status, allowed) == (405, allow)
    assert answer["error"]["message"] == f"{path} has no {method}: use {allow.replace(', ', ' or ')}"


def test_an_error_that_was_ordered_is_whole_whatever_else_was(engine: EngineProcess) -> None:
    stops = {"half_open_after_chunks": 0, "abort_after_chunks": 0, "bytes_per_write": 1, "stall_after_chunks": 0}
    status, answer, _ = ask(engine, "POST", "/v1/chat/completions", CHAT | {"sim": {"status": 503} | stops})
    assert (status, answer["error"]["type"]) == (503, "ServiceUnavailableError")


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("/v1/embeddings", {"input": ["a"] * 2_049}, "input", "at most 2048 inputs, not 2049"),
        ("/v1/embeddings", {"input": ["a"] * 600, "dimensions": 4_096}, "dimensions", "at most 2097152"),
        ("/tokenize", {"prompt": "a" * 4_194_305}, None, "at most 1048576 tokens, not 1048577"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a" * 4_194_304}]}, None, "at most 1048576 tokens"),
        ("/detokenize", {"tokens": [1] * 1_048_577}, "tokens", "length <= 1048576"),
        ("/detokenize", {"tokens": [1] * 4_300_000}, "tokens", "at most 1048576 tokens"),
    ],
)
def test_too_much_to_ask_for_at_once_is_refused(
    engine: EngineProcess, path: str, body: dict[str, Any], param: str | None, said: str
) -> None:
    status, answer, _ = ask(engine, "POST", path, {"model": "sim"} | body)
    assert (status, answer["error"]["param"]) == (400, param)
    assert said in answer["error"]["message"]


@pytest.mark.parametrize("ids", [False, True])
def test_as_many_inputs_as_there_may_be_are_embedded(engine: EngineProcess, *, ids: bool) -> None:
    # So many numbers are one input of that many tokens.
    given: list[Any] = [7] * 3_000 if ids else ["a"] * 2_048
    status, answer, _ = ask(engine, "POST", "/v1/embeddings", {"model": "sim", "input": given})
    assert (status, len(answer["data"])) == (200, 1 if ids else 2_048)
