"""How bodies are framed: trailers, broken chunks, and bodies that go on after the answer. None of it is trusted."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.chat import chat
from tests.support.ledger import closed_event
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import RawConnection
    from tests.support.servers import Databases

BODY_BYTES_MAX = 65_536
CHAT = "/v1/chat/completions"
TRAILER_LINE = b"x-more: " + b"y" * 1000 + b"\r\n"
FLOOD_BYTES = 32 * 2**20
GROWTH_BYTES_MAX = 16 * 2**20


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that takes small bodies."""
    folder = tmp_path_factory.mktemp("framing")
    with running_stack(databases, servers, folder, body_bytes_max=BODY_BYTES_MAX) as running:
        yield running


@pytest.fixture
def connection(stack: Stack) -> Iterator[RawConnection]:
    """A connection of the test's own."""
    with stack.gateway.http().raw() as opened:
        yield opened


def head(*lines: str) -> bytes:
    """Return the head of a chunked chat request with these further lines."""
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", "host: x", "transfer-encoding: chunked", *lines, "", ""]).encode()


def chunked(body: bytes, trailers: bytes = b"") -> bytes:
    """Return a body in one chunk, with trailers."""
    return b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


BODY = json.dumps(chat()).encode()


def test_a_trailer_authenticates_nobody(stack: Stack, connection: RawConnection) -> None:
    key = stack.tenant().key
    connection.send(head() + chunked(BODY, f"authorization: Bearer {key}\r\n".encode()))
    assert_refused(connection.answer(), 401, "invalid_api_key")


def test_a_trailer_replaces_no_header(stack: Stack, connection: RawConnection) -> None:
    key = stack.tenant().key
    trailers = b"authorization: Bearer nobody\r\nx-session-id: trailer\r\n"
    connection.send(head(f"authorization: Bearer {key}", "x-session-id: head") + chunked(BODY, trailers))
    answer = connection.answer()
    assert answer.status == 200
    assert closed_event(stack.dsn, answer.request_id)["session"] == "head"


def test_trailers_without_end_are_bounded(stack: Stack, connection: RawConnection) -> None:
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    connection.send(head() + b"2\r\n{}\r\n0\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(FLOOD_BYTES // len(TRAILER_LINE)):
            connection.send(TRAILER_LINE)
        pytest.fail("the gateway read on")
    assert process.memory_info().rss - before < GROWTH_BYTES_MAX


def test_a_body_that_nobody_reads_is_bounded(connection: RawConnection) -> None:
    connection.send(head())
    assert_refused(connection.answer(), 401, "invalid_api_key")
    chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for _ in range(FLOOD_BYTES // len(chunk)):
            connection.send(chunk)
        pytest.fail("the gateway read on")


@pytest.mark.parametrize(
    "framing",
    [b"zz\r\n", b"-1\r\n", b"f" * 18 + b"\r\n", b"2\r\n{}\r\nzz\r\n", b"2\r\n{}x"],
    ids=["no number", "negative", "too large", "after a chunk", "no end of chunk"],
)
def test_a_broken_chunk_is_answered(stack: Stack, connection: RawConnection, framing: bytes) -> None:
    connection.send(head(f"authorization: Bearer {stack.tenant().key}") + framing)
    assert_refused(connection.answer(), 400, "invalid_request")
    assert connection.closed()
