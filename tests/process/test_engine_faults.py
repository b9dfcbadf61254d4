"""Every fault of the simulated engine as bytes on the wire, at each of its endpoints, streamed and whole."""

from __future__ import annotations

import json
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from gateway.dev.engine.behaviour import Faults
from tests.support.engine import EngineProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES = [{"role": "user", "content": "hello"}]
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "stream_options": {"include_usage": True}},
    "/v1/completions": {"prompt": "hello", "max_tokens": 8, "stream_options": {"include_usage": True}},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 8},
    "/v1/responses": {"input": "hello", "max_output_tokens": 8},
}
CHAT = "/v1/chat/completions"
# What a chat of eight tokens says: the role, a chunk for each, the usage, and the end mark.
CHAT_EVENTS = 11
CASES = [(path, stream) for path in ASKS for stream in (True, False)]
End = Literal["complete", "reset", "silent"]

cases = pytest.mark.parametrize(("path", "stream"), CASES)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess(output_tokens=8) as running:
        yield running


class Wire:
    """One request sent by hand, and what comes of it."""

    def __init__(self, engine: EngineProcess, path: str, *, stream: bool, sim: dict[str, Any]) -> None:
        fields = {name: value for name, value in ASKS[path].items() if stream or name != "stream_options"}
        body = json.dumps({"model": "sim", "stream": stream, "sim": sim, **fields}).encode()
        self.connection = socket.create_connection(("127.0.0.1", engine.port), timeout=10)
        head = b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.connection.sendall(head % (path.encode(), len(body)) + body)
        self.received = b""

    def read(self, quiet_s: float = 10.0) -> End:
        """Read until the connection ends, or nothing has come for `quiet_s` seconds."""
        self.connection.settimeout(quiet_s)
        with suppress(ConnectionResetError):
            try:
                while piece := self.connection.recv(1_048_576):
                    self.received += piece
            except TimeoutError:
                return "silent"
            return "complete"
        return "reset"

    @property
    def head(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """The body; of a chunked one, the content as far as it came."""
        _, _, rest = self.received.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in self.head:
            return rest
        content = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            content, rest = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return content

    @property
    def ended(self) -> bool:
        """Whether a chunked body came to its proper end."""
        return self.received.endswith(b"\r\n0\r\n\r\n")

    def close(self) -> None:
        self.connection.close()


def said(engine: EngineProcess, path: str, *, stream: bool, end: End = "complete", **sim: Any) -> Wire:
    """Ask, and read to the end, which must be `end`."""
    with closing(Wire(engine, path, stream=stream, sim=sim)) as wire:
        assert wire.read() == end
        return wire


def data_of(wire: Wire) -> list[bytes]:
    return [line[6:] for line in wire.body.split(b"\n") if line.startswith(b"data: ")]


def usages(wire: Wire, *, stream: bool) -> list[dict[str, Any]]:
    """Return every usage in an answer, wherever its dialect puts it."""
    found: list[dict[str, Any]] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("usage"):
                found.append(value["usage"])
            for inner in value.values():
                look(inner)

    for text in data_of(wire) if stream else [wire.body]:
        if text != b"[DONE]":
            look(json.loads(text))
    return found


@cases
def test_a_reset_before_the_answer_leaves_not_a_byte(engine: EngineProcess, path: str, *, stream: bool) -> None:
    before = engine.counters()
    assert said(engine, path, stream=stream, end="reset", reset_before=True).received == b""
    after = engine.wait_for(lambda now: now["failed"] == before["failed"] + 1)
    assert after["prompt_tokens"] == before["prompt_tokens"], "nothing was computed"


@cases
def test_an_error_may_come_late_and_be_no_json(engine: EngineProcess, path: str, *, stream: bool) -> None:
    wire = said(engine, path, stream=stream, status=503, retry_after=7, delay_ms=1, garbage=True)
    assert wire.head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 7" in wire.head
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(wire.body)


@cases
def test_a_delay_holds_back_the_head(engine: EngineProcess, path: str, *, stream: bool) -> None:
    with closing(Wire(engine, path, stream=stream, sim={"delay_ms": 600_000})) as wire:
        engine.wait_for(lambda now: now["received"] > now["finished"] + now["failed"] + now["aborted"])
        assert (wire.read(quiet_s=0.05), wire.received) == ("silent", b"")
    engine.wait_for(lambda now: now["received"] == now["finished"] + now["failed"] + now["aborted"])


@cases
def test_garbage_is_no_json(engine: EngineProcess, path: str, *, stream: bool) -> None:
    wire = said(engine, path, stream=stream, garbage=True)
    texts = data_of(wire) if stream else [wire.body]
    assert len(texts) >= (8 if stream else 1)
    for text in texts:
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(text)


@cases
def test_a_reset_in_the_middle(engine: EngineProcess, path: str, *, stream: bool) -> None:
    wire = said(engine, path, stream=stream, end="reset", abort_after_chunks=3)
    assert len(data_of(wire)) == (3 if stream else 0)


@cases
def test_an_early_end_looks_like_a_proper_one(engine: EngineProcess, path: str, *, stream: bool) -> None:
    before = engine.counters()["failed"]
    wire = said(engine, path, stream=stream, end_after_chunks=3)
    if stream:
        assert (len(data_of(wire)), wire.ended) == (3, True)
        assert b"[DONE]" not in wire.body
        assert b'"finish_reason":"' not in wire.body
    else:
        assert f"content-length: {len(wire.body)}".encode() in wire.head
        with pytest.raises(ValueError, match=r"."):
            json.loads(wire.body)
    engine.wait_for(lambda now: now["failed"] == before + 1)


@cases
def test_a_stall_ends_with_the_hang_up(engine: EngineProcess, path: str, *, stream: bool) -> None:
    before = engine.counters()["aborted"]
    with closing(Wire(engine, path, stream=stream, sim={"stall_after_chunks": 3})) as wire:
        assert wire.read(quiet_s=0.05) == "silent"
        assert len(data_of(wire)) == (3 if stream else 0)
        assert engine.counters()["aborted"] == before
    engine.wait_for(lambda now: now["aborted"] == before + 1 and now["running"] == 0)


@cases
def test_a_vanished_peer_does_not_even_see_the_hang_up(engine: EngineProcess, path: str, *, stream: bool) -> None:
    before = engine.counters()
    with closing(Wire(engine, path, stream=stream, sim={"half_open_after_chunks": 2})) as wire:
        assert wire.read(quiet_s=0.05) == "silent"
        assert len(data_of(wire)) == (2 if stream else 0)
        # Its machine is gone: what it ran runs no more.
        engine.wait_for(lambda now: now["failed"] == before["failed"] + 1 and now["running"] == 0)
        # It does not read: what it does not take fills the buffers.
        with pytest.raises(TimeoutError):
            wire.connection.sendall(b"x" * 33_554_432)
    assert engine.counters()["aborted"] == before["aborted"]


@cases
def test_usage_may_be_missing_zero_or_elsewhere(engine: EngineProcess, path: str, *, stream: bool) -> None:
    assert usages(said(engine, path, stream=stream, usage="none"), stream=stream) == []
    assert usages(said(engine, path, stream=stream, no_usage=True), stream=stream) == []
    proper = usages(said(engine, path, stream=stream, usage="chunk"), stream=stream)
    assert max(value for value in proper[-1].values() if isinstance(value, int)) > 0
    zeros = usages(said(engine, path, stream=stream, usage="zero"), stream=stream)
    assert [set(used) for used in zeros] == [set(used) for used in proper]
    assert "1" not in json.dumps(zeros).translate(str.maketrans("23456789", "11111111"))
    finish = said(engine, path, stream=stream, usage="finish")
    assert usages(finish, stream=stream)[-1].keys() == proper[-1].keys()
    if stream and "completions" in path:
        last = json.loads(data_of(finish)[-2])
        assert (last["choices"][0]["finish_reason"], last["usage"]["completion_tokens"]) == ("stop", 8)


@cases
def test_the_end_mark_may_be_missing(engine: EngineProcess, path: str, *, stream: bool) -> None:
    proper = said(engine, path, stream=stream)
    unmarked = said(engine, path, stream=stream, no_done=True)
    if not stream:
        json.loads(unmarked.body)
        return
    assert unmarked.ended
    assert len(data_of(unmarked)) == len(data_of(proper)) - 1
    for mark in (b"[DONE]", b"message_stop", b"response.completed"):
        assert mark not in unmarked.body


def test_a_whole_stream_may_come_in_one_write(engine: EngineProcess) -> None:
    wire = said(engine, CHAT, stream=True, events_per_write=1000)
    size = wire.received.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0]
    assert int(size, 16) == len(wire.body)
    assert len(data_of(wire)) == CHAT_EVENTS


def test_what_is_held_back_comes_before_the_end_of_it_all(engine: EngineProcess) -> None:
    wire = said(engine, CHAT, stream=True, end="reset", events_per_write=1000, abort_after_chunks=3)
    assert len(data_of(wire)) == 3


@cases
def test_events_and_bodies_may_be_huge(engine: EngineProcess, path: str, *, stream: bool) -> None:
    wire = said(engine, path, stream=stream, padding_bytes=2_000_000)
    texts = [text for text in data_of(wire) if text != b"[DONE]"] if stream else [wire.body]
    assert [len(json.loads(text)["padding"]) for text in texts] == [2_000_000] * len(texts)


@cases
def test_it_may_come_one_byte_at_a_time(engine: EngineProcess, path: str, *, stream: bool) -> None:
    wire = said(engine, path, stream=stream, bytes_per_write=1)
    if stream:
        assert wire.received.count(b"\r\n1\r\n") >= len(wire.body)
    assert [json.loads(text) for text in (data_of(wire) if stream else [wire.body]) if text != b"[DONE]"]


@pytest.mark.parametrize("path", list(ASKS))
def test_the_next_few_requests_alone(engine: EngineProcess, path: str) -> None:
    now = engine.control(times=2, status=500)
    assert now["status"] == 500
    statuses = [said(engine, path, stream=False).head[9:12] for _ in range(3)]
    assert statuses == [b"500", b"500", b"200"]
    assert engine.state()["behaviour"]["status"] is None


def test_embeddings_have_the_faults_of_whole_answers(engine: EngineProcess) -> None:
    ASKS["/v1/embeddings"] = {"input": "hello"}
    path = "/v1/embeddings"
    assert said(engine, path, stream=False, end="reset", abort_after_chunks=1).received == b""
    assert said(engine, path, stream=False, garbage=True).body.startswith(b'{"this')
    assert usages(said(engine, path, stream=False, usage="zero"), stream=False)[0]["prompt_tokens"] == 0


def test_every_fault_of_the_list_is_on_the_wire_here() -> None:
    """A fault that nobody has seen on the wire is none: its name must stand in a test of this file."""
    text = Path(__file__).read_text()
    assert [name for name in Faults.__struct_fields__ if f"{name}=" not in text and f'"{name}":' not in text] == []
