"""What clients do below HTTP: slow, endless, pipelined, half-finished or not HTTP at all. Bounded in time and size."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http, RawConnection
    from tests.support.servers import Databases

HEAD_BYTES_MAX = 8192
BODY_BYTES_MAX = 65_536
SENDS_MAX = 100_000
CHAT = "/v1/chat/completions"
GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that is quick to lose patience."""
    with running_stack(
        databases,
        servers,
        tmp_path_factory.mktemp("wire"),
        header_bytes_max=HEAD_BYTES_MAX,
        header_timeout_s=0.5,
        body_bytes_max=BODY_BYTES_MAX,
        body_timeout_s=0.5,
        keep_alive_timeout_s=2,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


@pytest.fixture
def connection(client: Http) -> Iterator[RawConnection]:
    """A connection of the test's own."""
    with client.raw() as opened:
        yield opened


def head(client: Http, path: str = CHAT, *fields: str, method: str = "POST") -> bytes:
    """Return a request head with the client's key and further header lines."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {client.key}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(client: Http, *fields: str, body: bytes | None = None) -> bytes:
    """Return a whole request for a chat completion."""
    sent = json.dumps(chat()).encode() if body is None else body
    return head(client, CHAT, f"content-length: {len(sent)}", *fields) + sent


def send_for_ever(connection: RawConnection, data: bytes) -> None:
    """Send the same again and again, up to a bound that nothing should let pass."""
    for _ in range(SENDS_MAX):
        connection.send(data)


def send_until_closed(connection: RawConnection, data: bytes) -> None:
    """Send the same again and again until the connection is closed."""
    with contextlib.suppress(OSError):
        send_for_ever(connection, data)


def test_a_body_that_does_not_come_times_out(client: Http) -> None:
    for length in (5, 1000, 50_000):
        with client.raw() as connection:
            connection.send(head(client, CHAT, f"content-length: {length}") + b"{")
            assert_refused(connection.answer(), 408, "request_timeout")


def test_a_body_that_trickles_times_out(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, CHAT, "transfer-encoding: chunked"))
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            connection.send(b"1\r\n \r\n")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert_refused(connection.answer(), 408, "request_timeout")
    finally:
        stop.set()
        thread.join()


def test_a_head_that_does_not_end_times_out(connection: RawConnection) -> None:
    connection.send(GET)
    assert_refused(connection.answer(), 408, "request_timeout")
    assert connection.closed()


def test_a_head_of_one_byte_times_out(connection: RawConnection) -> None:
    connection.send(b"G")
    assert_refused(connection.answer(), 408, "request_timeout")


def test_a_connection_that_says_nothing_is_closed(connection: RawConnection) -> None:
    assert connection.read() == b""


def test_a_connection_that_falls_silent_after_an_answer_is_closed(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, "/v1/models", method="GET"))
    assert connection.answer().status == 200
    assert connection.read() == b""


def test_a_second_head_that_does_not_end_times_out(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, "/v1/models", method="GET"))
    assert connection.answer().status == 200
    connection.send(GET)
    assert_refused(connection.answer(), 408, "request_timeout")


FLOODS = {
    "one long header": GET + b"x-long: " + b"a" * 2 * HEAD_BYTES_MAX,
    "many headers": GET + b"".join(b"x-%d: y\r\n" % number for number in range(2000)),
    "a whole head that is too long": GET + b"x-long: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n",
    "a long address": b"GET /" + b"a" * 2 * HEAD_BYTES_MAX,
    "a long name": GET + b"x" * 2 * HEAD_BYTES_MAX,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_head_over_the_bound_is_refused(connection: RawConnection, flood: bytes) -> None:
    connection.send(flood)
    assert_refused(connection.answer(), 431, "headers_too_large")
    assert connection.closed()


def test_an_endless_head_is_refused_soon(connection: RawConnection) -> None:
    connection.send(GET)
    with pytest.raises(ConnectionError):
        send_for_ever(connection, b"x: " + b"a" * 1000 + b"\r\n")


def test_a_head_at_the_bound_passes(client: Http) -> None:
    padding = "a" * (HEAD_BYTES_MAX - 600)
    assert client.get("/v1/models", {"x-padding": padding}).status == 200


def test_an_endless_body_is_refused_at_the_bound(client: Http, connection: RawConnection) -> None:
    """The rest is read and dropped for a while, or a client that is still sending would not see the answer."""
    connection.send(head(client, CHAT, "transfer-encoding: chunked"))
    thread = threading.Thread(target=send_until_closed, args=(connection, b"1000\r\n" + b" " * 4096 + b"\r\n"))
    thread.start()
    try:
        assert_refused(connection.answer(), 413, "request_too_large")
    finally:
        with contextlib.suppress(OSError):  # the gateway has closed already
            connection.socket.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_chunked_body_over_the_bound_is_too_large(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, CHAT, "transfer-encoding: chunked"))
    connection.send(b"%x\r\n" % (BODY_BYTES_MAX + 1) + b" " * (BODY_BYTES_MAX + 1))
    assert_refused(connection.answer(), 413, "request_too_large")


def test_a_body_said_to_be_huge_is_refused_before_it_comes(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, CHAT, "content-length: 999999999999999"))
    assert_refused(connection.answer(), 413, "request_too_large")


NOT_HTTP = {
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 64,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "words": b"hello gateway, how are you\r\n\r\n",
    "a strange version": b"GET /v1/models HTTP/9.9\r\n\r\n",
    "a strange method": b"BREW /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in the address": b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "a space in a name": GET + b"a b: c\r\n\r\n",
    "a zero in a value": GET + b"a: b\x00c\r\n\r\n",
    "a folded header": GET + b"a: b\r\n c\r\n\r\n",
    "a length that is none": b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
    "a negative length": b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    "two lengths": b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    "a length and chunks": (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "an endless length": b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 40 + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_told_so(connection: RawConnection, sent: bytes) -> None:
    connection.send(sent)
    assert_refused(connection.answer(), 400, "invalid_request")
    assert connection.closed()


def test_a_chunk_that_is_none_ends_the_connection(stack: Stack, client: Http, connection: RawConnection) -> None:
    received = stack.engine.counters()["received"]
    connection.send(head(client, CHAT, "transfer-encoding: chunked") + b"5\r\nhello\r\nxyz\r\n")
    assert connection.closed()
    assert stack.engine.counters()["received"] == received


def test_requests_in_one_packet_are_answered_in_order(client: Http, connection: RawConnection) -> None:
    wanted = [("sim", 200), ("nothing", 404), ("sim", 200), ("sim", 200)]
    connection.send(b"".join(post(client, body=json.dumps(chat(model=model)).encode()) for model, _ in wanted))
    assert [connection.answer().status for _ in wanted] == [status for _, status in wanted]


def test_garbage_after_a_request_does_not_spoil_its_answer(client: Http, connection: RawConnection) -> None:
    connection.send(post(client))
    assert connection.answer().status == 200
    connection.send(b"\x00\x01\r\n\r\n")
    assert_refused(connection.answer(), 400, "invalid_request")


def test_a_stream_and_a_request_behind_it_are_both_answered(client: Http, connection: RawConnection) -> None:
    streamed = json.dumps(chat(stream=True)).encode()
    connection.send(post(client, body=streamed) + post(client))
    first, second = connection.answer(), connection.answer()
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert second.document["object"] == "chat.completion"


def test_a_client_may_wait_for_100_continue(client: Http, connection: RawConnection) -> None:
    body = json.dumps(chat()).encode()
    connection.send(head(client, CHAT, f"content-length: {len(body)}", "expect: 100-continue"))
    assert connection.read().startswith(b"HTTP/1.1 100 ")
    connection.send(body)
    assert connection.answer().status == 200


def test_an_offer_to_upgrade_is_not_taken_up(client: Http, connection: RawConnection) -> None:
    """Java's own client offers HTTP/2 with every first request."""
    offer = (
        "connection: Upgrade, HTTP2-Settings",
        "upgrade: h2c",
        "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    assert client.get("/v1/models").status == 200, "the key is known: nothing waits before the body is read"
    request = post(client, *offer)
    split = request.index(b"\r\n\r\n") + 4
    connection.send(request[:split])
    assert client.get("/livez").status == 200, "by now the head has been read"
    connection.send(request[split:])
    assert connection.answer().status == 200
    connection.send(request + post(client))
    assert [connection.answer().status for _ in range(2)] == [200, 200]


def test_a_websocket_is_not_opened(client: Http, connection: RawConnection) -> None:
    offer = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: YWJj")
    connection.send(head(client, "/v1/models", *offer, method="GET"))
    assert connection.answer().status == 200


def test_an_address_with_a_host_is_understood(client: Http, connection: RawConnection) -> None:
    connection.send(head(client, "http://x/v1/models", method="GET"))
    assert connection.answer().status == 200


def test_bytes_one_by_one_are_a_request(client: Http, connection: RawConnection) -> None:
    for byte in post(client):
        connection.send(bytes([byte]))
    assert connection.answer().status == 200


def test_a_client_that_leaves_in_its_body_is_no_request(stack: Stack, client: Http) -> None:
    series = 'penstock_refused_requests_total{code="client_disconnected"}'
    before = stack.gateway.metrics().get(series, 0)
    with client.raw() as leaving:
        leaving.send(head(client, CHAT, "content-length: 1000") + b"{")
        leaving.socket.shutdown(socket.SHUT_WR)
    wait_for(lambda: stack.gateway.metrics().get(series, 0) == before + 1, "the client is gone")
