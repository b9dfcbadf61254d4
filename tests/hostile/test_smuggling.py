"""Requests that two servers could cut at different places: refused and closed, or read in the one way there is.

Behind each hides a second request. What counts is what the engine has seen: never the hidden one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat, completion
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

BODY = json.dumps(chat()).encode()
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"
HIDDEN = "what nobody may see"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that does not wait long for the end of what it was promised."""
    with running_stack(
        databases,
        servers,
        tmp_path_factory.mktemp("smuggling"),
        header_timeout_s=0.5,
        body_timeout_s=0.5,
        keep_alive_timeout_s=1,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Tenant:
    """A tenant without limits."""
    return stack.tenant()


def head(key: str, *lines: str, first: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    """Return a head with these lines after the usual ones."""
    usual = [first, "host: x", f"authorization: Bearer {key}"]
    return "\r\n".join([*usual, *lines, "", ""]).encode("latin-1")


def hidden(key: str) -> bytes:
    """Return the request that hides."""
    body = json.dumps(completion(HIDDEN)).encode()
    return head(key, f"content-length: {len(body)}", first="POST /v1/completions HTTP/1.1") + body


def statuses(stack: Stack, sent: bytes) -> list[int]:
    """Send bytes and return the status of every answer until the gateway closes."""
    found = []
    with stack.gateway.http().raw() as connection:
        connection.send(sent)
        while (line := connection.peek_line()) != b"":
            assert line.startswith(b"HTTP/1.1 "), line
            found.append(connection.answer().status)
    return found


REFUSED: dict[str, tuple[list[str], bytes]] = {
    "a length and chunks": ([LENGTH, CHUNKED], CHUNK + b"0\r\n\r\n"),
    "chunks and a length": ([CHUNKED, LENGTH], CHUNK + b"0\r\n\r\n"),
    "chunks and a length of none": ([CHUNKED, "content-length: 0"], CHUNK + b"0\r\n\r\n"),
    "a length and chunks in capitals": ([LENGTH, "Transfer-Encoding: CHUNKED"], CHUNK + b"0\r\n\r\n"),
    "chunks that are not the last coding": (["transfer-encoding: chunked, gzip"], CHUNK + b"0\r\n\r\n"),
    "a coding that nobody knows": (["transfer-encoding: xchunked"], CHUNK + b"0\r\n\r\n"),
    "identity": (["transfer-encoding: identity", LENGTH], BODY),
    "chunks in quotes": (['transfer-encoding: "chunked"'], CHUNK + b"0\r\n\r\n"),
    "chunks behind a vertical tab": (["transfer-encoding: \x0bchunked"], CHUNK + b"0\r\n\r\n"),
    "chunks before a form feed": (["transfer-encoding: chunked\x0c"], CHUNK + b"0\r\n\r\n"),
    "chunks behind a zero": (["transfer-encoding: \x00chunked"], CHUNK + b"0\r\n\r\n"),
    "a blank before the colon of chunks": ([LENGTH, "transfer-encoding : chunked"], CHUNK + b"0\r\n\r\n"),
    "a tab before the colon of chunks": (["transfer-encoding\t: chunked", LENGTH], BODY),
    "a blank before the colon of a length": ([f"content-length : {len(BODY)}"], BODY),
    "a folded coding": (["transfer-encoding:\r\n chunked", LENGTH], BODY),
    "a folded length": (["x: y\r\n content-length: 0", LENGTH], BODY),
    "a first line that is folded": ([" x: y", LENGTH], BODY),
    "two lengths": ([LENGTH, "content-length: 0"], BODY),
    "two lengths, the other way round": (["content-length: 0", LENGTH], BODY),
    "a list of lengths": ([f"content-length: {len(BODY)}, {len(BODY)}"], BODY),
    "a length with a sign": ([f"content-length: +{len(BODY)}"], BODY),
    "a length below zero": (["content-length: -1"], BODY),
    "a length in hexadecimal": (["content-length: 0x10"], BODY),
    "a length with a blank inside": (["content-length: 1 0"], BODY),
    "a length with a point": ([f"content-length: {len(BODY)}.0"], BODY),
    "a length beyond 64 bits": ([f"content-length: {2**64 + len(BODY)}"], BODY),
    "no length but the word": (["content-length:"], BODY),
    "a zero in a name": ([LENGTH, "x\x00y: z"], BODY),
    "a zero in a value": ([LENGTH, "x: y\x00z"], BODY),
    "a return in a value": ([LENGTH, "x: y\rtransfer-encoding: chunked"], BODY),
    "a line without a colon": ([LENGTH, "transfer-encoding"], BODY),
    "an empty name": ([LENGTH, ": chunked"], BODY),
    "a chunk's size beyond 64 bits": ([CHUNKED], b"f" * 17 + b"\r\n" + BODY),
    "a chunk's size that overflows to another": ([CHUNKED], b"1" + b"0" * 16 + b"\r\n" + CHUNK),
    "a chunk's size with a sign": ([CHUNKED], b"+" + CHUNK + b"0\r\n\r\n"),
    "a chunk's size in C's notation": ([CHUNKED], b"0x" + CHUNK + b"0\r\n\r\n"),
    "a chunk's size behind a blank": ([CHUNKED], b" " + CHUNK + b"0\r\n\r\n"),
    "a chunk that is longer than it says": ([CHUNKED], b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk's line that ends in a return": ([CHUNKED], CHUNK.replace(b"\r\n", b"\r", 1) + b"0\r\n\r\n"),
    "a chunk's extension with a line feed": ([CHUNKED], CHUNK.replace(b"\r\n", b";a\nb\r\n", 1) + b"0\r\n\r\n"),
    "a chunk's extension with a zero": ([CHUNKED], CHUNK.replace(b"\r\n", b";a=\x00\r\n", 1) + b"0\r\n\r\n"),
    "a trailer that says another length": ([CHUNKED], CHUNK + b"0\r\ncontent-length: 5\r\n\r\n"),
}


@pytest.mark.parametrize(("lines", "body"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_cut_in_two_ways_is_refused_whole(
    stack: Stack, tenant: Tenant, lines: list[str], body: bytes
) -> None:
    received = stack.engine.counters()["received"]
    assert statuses(stack, head(tenant.key, *lines) + body + hidden(tenant.key)) == [400]
    assert stack.engine.counters()["received"] == received


ONE_READING: dict[str, tuple[list[str], bytes]] = {
    "a length with a zero before it": (["content-length: 0" + str(len(BODY))], BODY),
    "blanks before a length": ([f"content-length: \t {len(BODY)}"], BODY),
    "a chunk's extension": ([CHUNKED], CHUNK.replace(b"\r\n", b';a=b;c="d e"\r\n', 1) + b"0\r\n\r\n"),
    "a chunk's size with zeros": ([CHUNKED], b"0000" + CHUNK + b"0000\r\n\r\n"),
    "capitals": (["TRANSFER-ENCODING: Chunked"], CHUNK + b"0\r\n\r\n"),
    "a trailer that is no framing": ([CHUNKED], CHUNK + b"0\r\nx: y\r\n\r\n"),
    "a length by another name": ([LENGTH, "content_length: 0", "x-content-length: 0"], BODY),
    "words of a proxy": ([LENGTH, "x-http-method-override: GET", "x-original-url: /admin/v1/keys"], BODY),
}


@pytest.mark.parametrize(("lines", "body"), ONE_READING.values(), ids=ONE_READING)
def test_what_can_be_cut_in_one_way_is(stack: Stack, tenant: Tenant, lines: list[str], body: bytes) -> None:
    """Then what follows is no hidden request but the next one, and refused by its own key."""
    received = stack.engine.counters()["received"]
    next_one = head("nobody", "content-length: 0", "connection: close")
    assert statuses(stack, head(tenant.key, *lines) + body + next_one) == [200, 401]
    assert stack.engine.counters()["received"] == received + 1
    assert stack.engine.state()["requests"][-1]["body"] == chat()


FIRST_LINES = {
    "another host": ("POST http://elsewhere/v1/chat/completions HTTP/1.1", [200]),
    "a foreign scheme": ("POST ftp://elsewhere/v1/chat/completions HTTP/1.1", [200]),
    "userinfo": ("POST http://a:b@elsewhere/v1/chat/completions HTTP/1.1", [200]),
    "an authority alone": ("POST elsewhere:80 HTTP/1.1", [400]),
    "two addresses": ("POST /v1/chat/completions /admin/v1/keys HTTP/1.1", [400]),
    "two versions": ("POST /v1/chat/completions HTTP/1.1 HTTP/1.1", [400]),
    "dots": ("POST /v1/models/../chat/completions HTTP/1.1", [405]),
    "escaped dots": ("POST /v1/models/%2e%2e/chat/completions HTTP/1.1", [405]),
    "doubled slashes": ("POST //v1/chat/completions HTTP/1.1", [404]),
    "an escaped end of line": ("POST /v1/chat/completions%0d%0ax: HTTP/1.1", [404]),
    "an escaped zero": ("POST /v1/chat/completions%00 HTTP/1.1", [404]),
}


@pytest.mark.parametrize(("first", "wanted"), FIRST_LINES.values(), ids=FIRST_LINES)
def test_an_address_is_read_in_one_way(stack: Stack, tenant: Tenant, first: str, wanted: list[int]) -> None:
    received = stack.engine.counters()["received"]
    sent = head(tenant.key, LENGTH, "connection: close", first=first) + BODY
    assert statuses(stack, sent + hidden(tenant.key)) == wanted
    assert stack.engine.counters()["received"] == received + wanted.count(200)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\n\r"], ids=["line feeds", "returns", "the wrong way round"])
def test_bare_ends_of_lines_are_refused(stack: Stack, tenant: Tenant, line_end: bytes) -> None:
    received = stack.engine.counters()["received"]
    sent = head(tenant.key, LENGTH).replace(b"\r\n", line_end) + BODY
    assert statuses(stack, sent + hidden(tenant.key)) == [400]
    assert stack.engine.counters()["received"] == received


def test_the_body_of_a_refused_request_is_no_request(stack: Stack, tenant: Tenant) -> None:
    """It is read as a body or the connection is closed, whoever refused it and whenever."""
    received = stack.engine.counters()["received"]
    inside = hidden(tenant.key)
    refusals = {
        401: head("nobody", f"content-length: {len(inside)}"),
        404: head(tenant.key, f"content-length: {len(inside)}", first="POST /v1/nothing HTTP/1.1"),
        405: head(tenant.key, f"content-length: {len(inside)}", first="GET /v1/completions HTTP/1.1"),
        413: head(tenant.key, "content-length: 99999999999"),
        415: head(tenant.key, f"content-length: {len(inside)}", "content-encoding: gzip"),
        400: head(tenant.key, f"content-length: {len(inside)}"),
    }
    for status, first in refusals.items():
        assert statuses(stack, first + inside) == [status]
    assert stack.engine.counters()["received"] == received


def test_nothing_hides_behind_a_request_that_offers_to_upgrade(stack: Stack, tenant: Tenant) -> None:
    received = stack.engine.counters()["received"]
    for offer in (
        ["connection: upgrade", "upgrade: websocket"],
        ["connection: upgrade, http2-settings", "upgrade: h2c"],
    ):
        sent = head(tenant.key, *offer, f"content-length: {len(hidden(tenant.key))}", first="GET /livez HTTP/1.1")
        assert statuses(stack, sent + hidden(tenant.key)) == [200]
    assert stack.engine.counters()["received"] == received


def test_a_tunnel_is_not_opened(stack: Stack, tenant: Tenant) -> None:
    received = stack.engine.counters()["received"]
    sent = head(tenant.key, first="CONNECT elsewhere:80 HTTP/1.1")
    assert set(statuses(stack, sent + hidden(tenant.key))) <= {400, 404, 405}
    assert stack.engine.counters()["received"] == received
