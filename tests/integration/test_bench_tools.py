"""The bench engine and the load client against each other, and each against a peer that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from bench.errors import BenchError
from bench.pair import EngineSpec, LoadSpec, LoadTiming, run_load, running_engine
from bench.payloads import chat_body, http_request, write_request
from bench.toolchain import build_tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bench.toolchain import Tools

SECOND = LoadTiming(warmup_s=0.25, measure_s=1.0)
SHORT = LoadTiming(warmup_s=0.0, measure_s=0.2, drain_s=5.0)
GOOD_BODY = b'{"choices":[{"finish_reason":"stop"}]}'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CONTENT = b'data: {"choices":[{"delta":{"content":"@ns:00000000000000000001 "}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Both programs, freshly compiled."""
    return build_tools(tmp_path_factory.mktemp("bench-build"))


def whole(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    """Return an answer with a content-length."""
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, extra, len(body), body)


def chunked(*pieces: bytes) -> bytes:
    """Return an event stream, a chunk to each piece, ended properly."""
    return STREAM_HEAD + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@asynccontextmanager
async def scripted(answer: bytes, *, hang_up: bool) -> AsyncIterator[int]:
    """Serve `answer` to every request, whatever it says, and close the connection after it when `hang_up` is set."""

    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                writer.write(answer)
                await writer.drain()
                if hang_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, handlers))  # the client is gone, so all of them end


def test_a_closed_loop_and_the_engine_count_the_same(tools: Tools, tmp_path: Path) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 2_000, stream=False)
    with running_engine(tools, EngineSpec(), tmp_path / "engine.log") as engine:
        result = run_load(tools, engine.port, request, LoadSpec(32), SECOND)
        counters = engine.stop()
    assert 0 < result.requests < result.answered
    assert result.answered == counters.finished == counters.requests
    assert counters.hangups == 0
    assert counters.prompt_tokens == counters.finished * (2_000 // 4 + 1)
    assert result.latency_us is not None
    assert result.latency_us.samples == result.requests
    assert result.transit_us is None


def test_streams_arrive_whole_and_are_counted(tools: Tools, tmp_path: Path) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 2_000, stream=True)
    load = LoadSpec(16, stream=True, ramp_s=0.2, expect_chunks=50)
    with running_engine(tools, EngineSpec(2, 1, 50), tmp_path / "engine.log") as engine:
        result = run_load(tools, engine.port, request, load, SECOND)
        counters = engine.stop()
    assert 0 < result.answered == counters.finished
    assert counters.completion_tokens == counters.finished * 50
    assert result.transit_us is not None
    assert result.transit_us.samples == result.chunks > 0
    assert result.first_content_us is not None
    assert result.first_content_us.p50 >= 2_000


def test_several_chunks_in_a_write_are_still_single_chunks(tools: Tools, tmp_path: Path) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 2_000, stream=True)
    engine_spec = EngineSpec(chunks=50, chunks_per_write=7)
    with running_engine(tools, engine_spec, tmp_path / "engine.log") as engine:
        result = run_load(tools, engine.port, request, LoadSpec(4, stream=True, expect_chunks=50), SHORT)
        counters = engine.stop()
    assert 0 < result.answered == counters.finished
    assert counters.completion_tokens == counters.finished * 50
    assert result.transit_us is not None
    assert result.transit_us.samples == result.chunks > 0


def test_an_open_loop_sends_what_is_due_the_same_each_time(tools: Tools, tmp_path: Path) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 100_000, stream=False)
    runs: list[tuple[int, int]] = []
    for _ in range(2):
        with running_engine(tools, EngineSpec(first_token_ms=5), tmp_path / "engine.log") as engine:
            marks: list[str] = []
            result = run_load(tools, engine.port, request, LoadSpec(64, rate_per_s=400), SECOND, marks.append)
            counters = engine.stop()
        assert result.answered == counters.finished
        assert marks == ["begin", "end"]
        runs.append((result.requests, result.answered))
    assert runs[0] == runs[1]
    assert 300 < runs[0][0] < 500, "a Poisson process of 400 a second: five deviations on either side"


def test_the_engine_answers_pipelined_and_large_requests_in_order(tools: Tools, tmp_path: Path) -> None:
    large = http_request(chat_body("m", 2_000_000, stream=False), "k")
    small = http_request(chat_body("m", 400, stream=False), "k")
    with running_engine(tools, EngineSpec(), tmp_path / "engine.log") as engine:
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(small + large + small)
            got = b""
            while got.count(b'"finish_reason"') < 3:
                got += client.recv(65_536)
        assert got.index(b"500001") > got.index(b'"prompt_tokens":      101')
        assert engine.stop().finished == 3


def test_the_engine_stops_a_stream_that_nobody_reads(tools: Tools, tmp_path: Path) -> None:
    stream = http_request(chat_body("m", 400, stream=True), "k")
    with running_engine(tools, EngineSpec(chunk_ms=1, chunks=100_000), tmp_path / "engine.log") as engine:
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(stream)
            assert client.recv(12) == b"HTTP/1.1 200"
        # The engine is one thread and takes events in order: once this is answered, it has seen the hang-up.
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert b'vllm:num_requests_running{engine="0",model_name="bench"} 0\n' in client.recv(4096)
        counters = engine.stop()
    assert (counters.requests, counters.finished, counters.hangups) == (1, 0, 1)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_the_engine_hangs_up_on_what_it_does_not_take(tools: Tools, tmp_path: Path, head: bytes) -> None:
    with (
        running_engine(tools, EngineSpec(), tmp_path / "engine.log") as engine,
        socket.create_connection(("127.0.0.1", engine.port)) as client,
    ):
        try:
            client.sendall(head)
            answer = client.recv(100)
        except ConnectionError:
            answer = b""
        assert answer == b""
        engine.process.check_running()


@pytest.mark.parametrize(
    ("answer", "stream", "complaint"),
    [
        (whole(b'{"error":{"code":"rate_limit_exceeded"}}', b"429 X"), False, r"refused \(status 429\).*rate_limit"),
        (whole(b'{"choices":[]}'), False, "without finish_reason"),
        (whole(GOOD_BODY)[:-5], False, "connection lost"),
        (whole(GOOD_BODY) + b"more", False, "bytes after the answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, "unreadable"),
        (whole(GOOD_BODY), True, "wrong kind of answer"),
        (chunked(CONTENT, FINISH), True, r"without finish_reason and \[DONE\]"),
        (chunked(CONTENT, DONE), True, r"without finish_reason and \[DONE\]"),
        (chunked(CONTENT, FINISH, DONE), True, "wrong number of chunks"),
        (chunked(CONTENT, b'data: {"error":{"message":"engine gone"}}\n\n'), True, "error event.*engine gone"),
        (chunked(CONTENT, CONTENT, FINISH, DONE)[:-5], True, "connection lost"),
    ],
)
async def test_the_load_client_notices(
    tools: Tools,
    tmp_path: Path,
    answer: bytes,
    stream: bool,  # noqa: FBT001 - a case
    complaint: str,
) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 400, stream=stream)
    load = LoadSpec(2, stream=stream, expect_chunks=2 if stream else 0)
    async with scripted(answer, hang_up=True) as port:
        with pytest.raises(BenchError, match=complaint):
            await asyncio.to_thread(run_load, tools, port, request, load, SHORT)


@pytest.mark.parametrize("split", [1, 7, 64])
async def test_the_load_client_reads_streams_split_anywhere(tools: Tools, tmp_path: Path, split: int) -> None:
    events = CONTENT * 2 + FINISH + DONE
    answer = chunked(*(events[start : start + split] for start in range(0, len(events), split)))
    request = write_request(tmp_path / "r.http", "m", "k", 400, stream=True)
    async with scripted(answer, hang_up=False) as port:
        load = LoadSpec(2, stream=True, expect_chunks=2)
        result = await asyncio.to_thread(run_load, tools, port, request, load, SHORT)
    assert result.answered > 0
    assert result.reconnects == 0


@pytest.mark.parametrize("extra", [b"connection: close\r\n", b""])
async def test_the_load_client_bears_closed_connections(tools: Tools, tmp_path: Path, extra: bytes) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 400, stream=False)
    async with scripted(whole(GOOD_BODY, extra=extra), hang_up=True) as port:
        result = await asyncio.to_thread(run_load, tools, port, request, LoadSpec(2), SHORT)
    assert result.answered > 0
    assert result.reconnects > 0


def test_the_load_client_says_when_nobody_listens(tools: Tools, tmp_path: Path) -> None:
    request = write_request(tmp_path / "r.http", "m", "k", 400, stream=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(BenchError, match="cannot connect"):
            run_load(tools, taken.getsockname()[1], request, LoadSpec(1), SHORT)
