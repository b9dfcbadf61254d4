"""Clients that send or read as slowly as they can, many at once: each is let go in time, and others do not notice."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Self

import psutil
import pytest

from tests.support.chat import chat
from tests.support.ledger import all_closed
from tests.support.scripted import ScriptedEngine, json_script, stream_script
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import RawConnection
    from tests.support.servers import Databases

SLOW_HEADS, SLOW_BODIES, SLOW_READERS = 200, 100, 8
PAUSE_S = 0.1
LET_GO_S_MAX = 20.0
CHUNKED = "transfer-encoding: chunked"
LARGE = "a" * 8_000_000
LARGE_ANSWER = {
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": LARGE}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
EVENT = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a" * 1_000_000}}]}
STREAM_GROWTH_BYTES_MAX = SLOW_READERS * 6 * 2**20
"""Of each stream of 50 MB: an event that is being cut out, the one being sent, and what is written but not taken."""


@pytest.fixture(scope="module")
def large() -> Iterator[ScriptedEngine]:
    """An engine that says a lot."""
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def stack(
    databases: Databases, servers: ServerAddresses, large: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One replica that is soon tired of waiting."""
    pool = {"engine": "vllm", "endpoints": [large.url], "timeouts": {"total_s": 4}}
    models = {"sim": {"pool": "gpu"}, "large": {"pool": "large"}}
    with running_stack(
        databases,
        servers,
        tmp_path_factory.mktemp("slow"),
        config={"pools": {"large": pool}, "models": models},
        header_timeout_s=1,
        body_timeout_s=2,
        keep_alive_timeout_s=1,
    ) as running:
        yield running


class Dribbling:
    """Sends a byte on each of many connections, again and again, until it is left. A context manager."""

    def __init__(self, connections: list[RawConnection], byte: bytes) -> None:
        self._connections = connections
        self._byte = byte
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            for connection in self._connections:
                with contextlib.suppress(OSError):  # let go already
                    connection.send(self._byte)


def post(key: str, document: object, *lines: str) -> bytes:
    """Return a request for a chat completion, with a length unless it has another."""
    body = json.dumps(document).encode()
    framing = lines or (f"content-length: {len(body)}",)
    head = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {key}", *framing, "", ""]
    return "\r\n".join(head).encode() + body


@contextlib.contextmanager
def connections(stack: Stack, count: int, sent: bytes) -> Iterator[list[RawConnection]]:
    """Yield many connections that have sent the same."""
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(stack.gateway.http().raw()) for _ in range(count)]
        for connection in made:
            connection.send(sent)
        yield made


def client_count(stack: Stack) -> int:
    """Return how many connections of clients the gateway has."""
    found = psutil.Process(stack.gateway.pid).net_connections("tcp")
    return sum(1 for connection in found if connection.laddr.port == stack.gateway.port and connection.raddr)


def assert_serves(stack: Stack, key: str) -> None:
    """Assert that another client has its answer."""
    assert stack.gateway.http(key).post("/v1/chat/completions", chat()).status == 200


def test_slow_senders_are_let_go(stack: Stack) -> None:
    """All kinds at once: each is answered in time, then what it goes on sending is dropped for ten seconds more."""
    key = stack.tenant().key
    sized, chunked = (post(key, {}, line).removesuffix(b"{}") for line in ("content-length: 100000", CHUNKED))
    with contextlib.ExitStack() as kinds:
        for count, sent, byte in (
            (SLOW_HEADS, b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-slow: ", b"a"),
            (SLOW_HEADS, b"", b"\r\n"),
            (SLOW_BODIES, sized, b" "),
            (SLOW_BODIES, chunked, b"1\r\n \r\n"),
        ):
            slow = kinds.enter_context(connections(stack, count, sent))
            kinds.enter_context(Dribbling(slow, byte))
        assert_serves(stack, key)
        wait_for(lambda: client_count(stack) == 0, "all are let go", LET_GO_S_MAX)
        assert_serves(stack, key)


def test_an_answer_that_nobody_takes_is_given_up(stack: Stack, large: ScriptedEngine) -> None:
    """What is written and not taken is memory of the replica's: it has an end, with the connection or without it."""
    large.script = json_script(LARGE_ANSWER)
    tenant = stack.tenant()
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    with connections(stack, SLOW_READERS, post(tenant.key, chat(model="large"))):
        all_closed(stack.dsn, tenant, SLOW_READERS)
        assert process.memory_info().rss - before > len(LARGE), "answers are held"
        assert_serves(stack, tenant.key)
        wait_for(lambda: client_count(stack) == 0, "all are let go", LET_GO_S_MAX)
    wait_for(lambda: process.memory_info().rss - before < SLOW_READERS * len(LARGE) // 2, "the memory is free")


def test_who_reads_slowly_has_all_of_the_answer(stack: Stack, large: ScriptedEngine) -> None:
    large.script = json_script(LARGE_ANSWER)
    key = stack.tenant().key
    with connections(stack, 1, 3 * post(key, chat(model="large"))) as [connection]:
        answers = [connection.answer() for _ in range(3)]
    assert [len(answer.document["choices"][0]["message"]["content"]) for answer in answers] == 3 * [len(LARGE)]


def test_a_stream_that_nobody_reads_is_bounded_in_memory_and_time(stack: Stack, large: ScriptedEngine) -> None:
    large.script = stream_script(*(50 * [EVENT]))
    tenant = stack.tenant()
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    most = 0
    with connections(stack, SLOW_READERS, post(tenant.key, chat(model="large", stream=True))):

        def ended() -> bool:
            nonlocal most
            most = max(most, process.memory_info().rss - before)
            return client_count(stack) == 0

        wait_for(lambda: stack.gateway.metrics()["penstock_requests_in_flight"] == SLOW_READERS, "all stream")
        assert_serves(stack, tenant.key)
        wait_for(ended, "all are let go", LET_GO_S_MAX)
    events = all_closed(stack.dsn, tenant, SLOW_READERS + 1)
    assert most < STREAM_GROWTH_BYTES_MAX, f"{most / 2**20:.0f} MiB"
    assert sum(event["status"] == "ok" for event in events) == 1
