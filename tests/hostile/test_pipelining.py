"""Many requests at once on one connection: each has its answer, and who leaves in between leaves nothing behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.ledger import all_closed
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

HEAD_BYTES_MAX = 4096


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that takes small heads. That its log holds no fault is asserted at the end."""
    folder = tmp_path_factory.mktemp("pipelining")
    with running_stack(databases, servers, folder, header_bytes_max=HEAD_BYTES_MAX) as running:
        yield running


def post(key: str, document: object) -> bytes:
    """Return a request for a chat completion."""
    body = json.dumps(document).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def test_packets_that_end_within_heads_are_no_long_head(stack: Stack) -> None:
    """Each packet is longer than a head may be; none of the heads is."""
    key = stack.tenant().key
    request = post(key, chat("a" * HEAD_BYTES_MAX))
    half = request[:100]
    with stack.gateway.http().raw() as connection:
        connection.send(half)
        for _ in range(5):
            stack.gateway.http().get("/livez")  # by now what was sent has been read
            connection.send(request[100:] + half)
            assert connection.answer().status == 200
        connection.send(request[100:])
        assert connection.answer().status == 200


def test_a_head_that_begins_behind_a_request_is_bounded_too(stack: Stack) -> None:
    key = stack.tenant().key
    with stack.gateway.http().raw() as connection:
        connection.send(post(key, chat()) + b"GET /v1/models HTTP/1.1\r\nx: ")
        assert connection.answer().status == 200
        connection.send(b"a" * (HEAD_BYTES_MAX + 1))
        assert_refused(connection.answer(), 431, "headers_too_large")


@pytest.mark.parametrize("streams", [True, False])
def test_who_leaves_with_requests_behind_the_first_has_hung_up(stack: Stack, *, streams: bool) -> None:
    """The requests behind it have not begun and never do; the first is stopped, settled and no fault."""
    tenant = stack.tenant()
    slow = chat("go", stream=streams, sim={"ttft_ms": 60_000})
    received = stack.engine.counters()["received"]
    with stack.gateway.http().raw() as connection:
        connection.send(post(tenant.key, slow) + 3 * post(tenant.key, chat()))
        stack.engine.wait_for(lambda counters: counters["received"] == received + 1)
    [event] = all_closed(stack.dsn, tenant, 1)
    assert event["status"] == "client_closed"
    assert stack.engine.counters()["received"] == received + 1


def test_a_stream_that_fails_with_a_request_behind_it_is_cut(stack: Stack) -> None:
    tenant = stack.tenant()
    failing = chat("one two three four five", stream=True, sim={"abort_after_chunks": 2})
    with stack.gateway.http().raw() as connection:
        connection.send(post(tenant.key, failing) + post(tenant.key, chat()))
        assert connection.closed()
    [event] = all_closed(stack.dsn, tenant, 1)
    assert event["status"] == "upstream_error"
    wait_for(lambda: stack.gateway.metrics()["penstock_requests_in_flight"] == 0, "nothing is in flight")
