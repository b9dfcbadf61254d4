"""The client's side of an answer: one head, after the ledger knows; comments until there is content; honest ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.edge.dialects import OPENAI
from gateway.edge.sink import AsgiSink
from gateway.errors import InvalidRequest, UpstreamFailed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from gateway.edge.errors import Header

OWN: list[tuple[bytes, bytes]] = [(b"x-request-id", b"1")]
EVERY_S = 0.001


class Client:
    """A connection that takes messages while `reads` is set, and remembers them and how it ended."""

    def __init__(self, *, writes_whole: bool = True) -> None:
        self.messages: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.waiting = 0
        self.holds = 0
        self.durable = asyncio.Event()
        self.durable.set()
        self.whole: list[tuple[int, list[Header], bytes]] = []
        self.broken = False
        self._writes_whole = writes_whole
        self._reads_once = False

    async def send(self, message: Any) -> None:
        """Take a message."""
        self.waiting += 1
        await self.reads.wait()
        self.waiting -= 1
        self.messages.append(message)
        if self._reads_once:
            self.reads.clear()

    def reads_once(self) -> None:
        """Take one more message, and then none."""
        self._reads_once = True

    async def hold(self) -> None:
        """Wait for the ledger."""
        self.holds += 1
        await self.durable.wait()

    def send_whole(self, status: int, headers: list[Header], body: bytes) -> bool:
        """Take a whole answer, unless it was told not to."""
        if self._writes_whole:
            self.whole.append((status, headers, body))
        return self._writes_whole

    def break_off(self) -> None:
        """Take note."""
        self.broken = True

    @property
    def sent(self) -> bytes:
        """All bytes of the body."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def heads(self) -> list[dict[str, Any]]:
        """All heads; there must be one."""
        return [message for message in self.messages if message["type"] == "http.response.start"]

    @property
    def ended(self) -> bool:
        """Whether the body was ended properly."""
        return bool(self.messages) and self.messages[-1].get("more_body") is False


def sink_of(client: Client) -> AsgiSink:
    return AsgiSink(client.send, client.hold, list(OWN), client)


async def test_a_stream_has_one_head_and_ends_properly() -> None:
    client = Client()
    sink = sink_of(client)
    await sink.write(b"a")
    await sink.write(b"b")
    await sink.end(b"c")
    (head,) = client.heads
    assert head["status"] == 200
    assert dict(head["headers"])[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert dict(head["headers"])[b"x-request-id"] == b"1"
    assert (client.sent, client.ended, client.holds, sink.started, sink.content_sent) == (b"abc", True, 1, True, True)


@pytest.mark.parametrize("how", ["write", "end", "answer"])
async def test_nothing_goes_out_before_the_ledger_knows(how: str) -> None:
    client = Client()
    client.durable.clear()
    sink = sink_of(client)
    sending = asyncio.ensure_future(getattr(sink, how)(b"{}"))
    await wait_until(lambda: client.holds, "it waits for the ledger")
    assert (client.messages, client.whole, sink.started) == ([], [], False)
    client.durable.set()
    await sending
    assert sink.started
    assert client.whole or client.sent == b"{}"


@pytest.mark.parametrize("writes_whole", [True, False])
async def test_a_whole_answer_says_its_length(writes_whole: bool) -> None:  # noqa: FBT001 - pytest passes by name
    client = Client(writes_whole=writes_whole)
    await sink_of(client).answer(b'{"a":1}')
    if writes_whole:
        ((status, headers, body),) = client.whole
        assert client.messages == []
    else:
        (head,) = client.heads
        status, headers, body = head["status"], head["headers"], client.sent
    assert (status, body) == (200, b'{"a":1}')
    assert dict(headers) == {
        b"x-request-id": b"1",
        b"content-type": b"application/json",
        b"content-length": b"7",
    }


async def test_without_a_connection_of_the_servers_own_messages_will_do() -> None:
    client = Client()
    sink = AsgiSink(client.send, client.hold, list(OWN), None)
    await sink.answer(b"{}")
    assert client.sent == b"{}"
    stream = AsgiSink(client.send, client.hold, list(OWN), None)
    await stream.write(b"a")
    await stream.fail(UpstreamFailed("cut"))
    assert not client.ended


async def test_comments_are_sent_until_there_is_content_and_never_after() -> None:
    client = Client()
    sink = sink_of(client)
    sink.keep_alive(EVERY_S)
    await wait_until(lambda: client.sent.count(OPENAI.keep_alive) >= 3, "comments are sent")
    assert (sink.started, sink.content_sent, client.holds) == (True, False, 1)
    await sink.write(b"data: x\n\n")
    count = client.sent.count(OPENAI.keep_alive)
    assert client.sent == OPENAI.keep_alive * count + b"data: x\n\n"
    await sink.end(b"data: [DONE]\n\n")
    assert sink._keep_alive is None
    assert client.sent.count(OPENAI.keep_alive) == count
    assert len(client.heads) == 1


async def test_content_that_comes_first_is_followed_by_no_comment() -> None:
    client = Client()
    sink = sink_of(client)
    sink.keep_alive(3_600)
    await sink.end(b"data: [DONE]\n\n")
    assert client.sent == b"data: [DONE]\n\n"
    assert sink._keep_alive is None
    await sink.stop_keep_alive()


@pytest.mark.parametrize("stuck_at", ["ledger", "head", "comment"])
async def test_content_overtakes_a_comment_that_cannot_be_sent(stuck_at: str) -> None:
    """A slow reader, or ledger, must not get two heads, nor a comment inside an event."""
    client = Client()
    sink = sink_of(client)
    if stuck_at == "ledger":
        client.durable.clear()
    elif stuck_at == "head":
        client.reads.clear()
    sink.keep_alive(EVERY_S)
    if stuck_at == "comment":
        await wait_until(lambda: client.heads, "the head is sent")
        client.reads.clear()
    await wait_until(lambda: client.waiting or (stuck_at == "ledger" and client.holds), "a comment is stuck")
    writing = asyncio.ensure_future(sink.end(b"data: x\n\n"))
    await asyncio.sleep(0)
    client.durable.set()
    client.reads.set()
    await writing
    assert len(client.heads) == 1
    assert client.sent.replace(OPENAI.keep_alive, b"") == b"data: x\n\n"
    assert client.sent.endswith(b"data: x\n\n")
    assert client.ended


@pytest.mark.parametrize(
    ("error", "kind"), [(UpstreamFailed("cut"), b"server_error"), (InvalidRequest("bad"), b"invalid_request_error")]
)
async def test_a_stream_that_fails_says_so_and_is_cut_when_a_repetition_may_help(
    error: UpstreamFailed | InvalidRequest, kind: bytes
) -> None:
    client = Client()
    sink = sink_of(client)
    sink.keep_alive(EVERY_S)
    await wait_until(lambda: client.sent, "a comment is sent")
    await sink.fail(error)
    assert (client.broken, client.ended) == (not error.permanent, error.permanent)
    assert b'"type":"%b"' % kind in client.messages[-1]["body"]
    assert sink._keep_alive is None


@pytest.mark.parametrize("stuck_at", [1, 2])
async def test_a_whole_answer_that_cannot_be_sent_is_cut_once_its_head_is_out(stuck_at: int) -> None:
    """No event belongs into it; before the head is out, an error with its own status still can go."""
    client = Client(writes_whole=False)
    sink = sink_of(client)
    if stuck_at == 1:
        client.reads.clear()
    else:
        client.reads_once()
    sending = asyncio.ensure_future(sink.answer(b"{}"))
    await wait_until(lambda: client.waiting and len(client.messages) == stuck_at - 1, "it waits for its reader")
    sending.cancel()
    await asyncio.wait((sending,))
    assert sink.started is (stuck_at == 2)
    assert sink.content_sent
    if sink.started:
        await sink.fail(UpstreamFailed("too late"))
        assert client.broken
        assert client.sent == b""
