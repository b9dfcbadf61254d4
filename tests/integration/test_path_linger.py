"""Answers that go out while the request is still coming: a client that writes first and reads then must see them.

A connection that is closed with bytes unread is reset, and the reset destroys the answer on its way.
"""

from __future__ import annotations

import http.client
import json
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from gateway.edge.linger import SILENCE_S_MAX
from tests.support.chat import chat
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http, RawConnection
    from tests.support.servers import Databases

BODY_BYTES_MAX = 2 * 2**20
HEAD_BYTES_MAX = 8192
UNREAD_BYTES = 7 * BODY_BYTES_MAX
"""More than the sockets hold, less than is dropped."""
ENDLESS_BYTES = 64 * 2**20
SENT = b" " * 65_536
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with small bounds."""
    with running_stack(
        databases,
        servers,
        tmp_path_factory.mktemp("linger"),
        body_bytes_max=BODY_BYTES_MAX,
        header_bytes_max=HEAD_BYTES_MAX,
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


def head(key: str | None, *fields: str, version: str = "1.1") -> bytes:
    """Return a request head with these further lines."""
    lines = [f"POST {CHAT} HTTP/{version}", "host: x", f"authorization: Bearer {key}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def write_then_read(connection: RawConnection, head_: bytes, size: int) -> Answer:
    """Write a head and a body of `size` blanks, all of it before the answer is read."""
    connection.send(head_)
    for _ in range(size // len(SENT)):
        connection.send(SENT)
    return connection.answer()


@pytest.mark.parametrize("fields", [["connection: close"], []], ids=["close", "keep-alive"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("size", [2 * BODY_BYTES_MAX, UNREAD_BYTES], ids=["double", "many times"])
def test_who_writes_before_reading_sees_that_the_body_is_too_large(
    client: Http, connection: RawConnection, fields: list[str], version: str, size: int
) -> None:
    answer = write_then_read(connection, head(client.key, f"content-length: {size}", *fields, version=version), size)
    assert_refused(answer, 413, "request_too_large")
    assert str(BODY_BYTES_MAX) in answer.error["message"]


def test_a_body_of_unsaid_length_is_refused_in_a_way_that_is_seen(client: Http, connection: RawConnection) -> None:
    connection.send(head(client.key, "transfer-encoding: chunked", "connection: close"))
    for _ in range(UNREAD_BYTES // len(SENT)):
        connection.send(b"%x\r\n%b\r\n" % (len(SENT), SENT))
    assert_refused(connection.answer(), 413, "request_too_large")
    assert connection.closed()


def test_a_key_is_refused_in_a_way_that_is_seen(connection: RawConnection) -> None:
    answer = write_then_read(
        connection, head("nobody", f"content-length: {UNREAD_BYTES}", "connection: close"), UNREAD_BYTES
    )
    assert_refused(answer, 401, "invalid_api_key")


def test_the_control_plane_refuses_in_a_way_that_is_seen(client: Http) -> None:
    connection = http.client.HTTPConnection(client.host, client.port, timeout=20)
    fields = {"connection": "close", "authorization": "Bearer nobody", "content-type": "application/json"}
    connection.request("POST", "/admin/v1/organizations", b" " * UNREAD_BYTES, fields)
    assert 400 <= connection.getresponse().status < 500
    connection.close()


def test_a_head_is_refused_in_a_way_that_is_seen(client: Http, connection: RawConnection) -> None:
    size = 2 * BODY_BYTES_MAX
    long = head(client.key, "x-long: " + "a" * HEAD_BYTES_MAX, f"content-length: {size}")
    assert_refused(write_then_read(connection, long, size), 431, "headers_too_large")


def test_what_is_not_http_is_refused_in_a_way_that_is_seen(connection: RawConnection) -> None:
    assert_refused(write_then_read(connection, b"", 2 * BODY_BYTES_MAX), 400, "invalid_request")


@pytest.mark.parametrize("fields", [["connection: close"], []], ids=["close", "keep-alive"])
def test_who_never_stops_sending_is_cut(client: Http, connection: RawConnection, fields: list[str]) -> None:
    with pytest.raises(ConnectionError):
        write_then_read(connection, head(client.key, f"content-length: {10 * ENDLESS_BYTES}", *fields), ENDLESS_BYTES)


def test_who_says_no_more_is_cut(stack: Stack, client: Http, connection: RawConnection) -> None:
    """The answer has an end at once; the connection, which counts until then, has one soon after."""
    client_port = connection.socket.getsockname()[1]
    connection.send(head(client.key, f"content-length: {2 * BODY_BYTES_MAX}", "connection: close") + SENT)
    began_s = time.monotonic()
    assert_refused(connection.answer(), 413, "request_too_large")
    assert connection.read() == b"", "the writing side is closed with the answer"
    assert time.monotonic() - began_s < SILENCE_S_MAX
    assert client_port in connected_ports(stack)
    wait_for(lambda: client_port not in connected_ports(stack), "the gateway has let go", 3 * SILENCE_S_MAX)


def test_a_body_that_is_still_welcome_is_read_to_its_end(client: Http, connection: RawConnection) -> None:
    body = json.dumps(chat()).encode() + b" " * 500_000
    connection.send(head(client.key, f"content-length: {len(body)}", "connection: close") + body[:100_000])
    assert client.get("/livez").status == 200, "by now the first part has been read"
    connection.send(body[100_000:])
    assert connection.answer().status == 200
    assert connection.closed()


def test_the_end_of_the_replica_destroys_no_answer(
    databases: Databases, servers: ServerAddresses, tmp_path: Path
) -> None:
    with running_stack(databases, servers, tmp_path, body_bytes_max=BODY_BYTES_MAX) as ending:
        client = ending.client()
        with client.raw() as connection:
            connection.send(head(client.key, f"content-length: {UNREAD_BYTES}") + SENT)
            wait_for(lambda: any(line["event"] == "refused" for line in ending.gateway.log_lines()), "it is refused")
            ending.gateway.signal(signal.SIGTERM)
            wait_for(lambda: any(line["event"] == "draining" for line in ending.gateway.log_lines()), "it drains")
            assert_refused(write_then_read(connection, b"", UNREAD_BYTES - len(SENT)), 413, "request_too_large")


def connected_ports(stack: Stack) -> set[int]:
    """Return the clients' ports of the connections that the gateway holds open."""
    process = psutil.Process(stack.gateway.pid)
    return {found.raddr.port for found in process.net_connections("tcp") if found.raddr}
