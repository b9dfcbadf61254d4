"""The end of an answer: once the client has everything, nothing that happens later changes how it is booked."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event
from tests.support.scripted import ScriptedEngine, json_script, stream_script
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import RawConnection
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WHOLE_STREAM = (
    {"choices": [{"index": 0, "delta": {"content": "one "}}]},
    {"choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE},
    "[DONE]",
)


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    """The engine behind the model `odd`."""
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture
def stack(
    databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedEngine
) -> Iterator[Stack]:
    """One replica before the simulated and the scripted engine."""
    models = {"sim": {"pool": "gpu"}, "odd": {"pool": "scripted"}}
    pools = {"scripted": {"engine": "openai", "endpoints": [scripted.url]}}
    folder = tmp_path_factory.mktemp("ends")
    with running_stack(databases, servers, folder, config={"models": models, "pools": pools}) as running:
        yield running


def request(key: str, *lines: str, **fields: Any) -> bytes:
    """Return a streamed chat request as bytes."""
    body = json.dumps(chat(stream=True, **fields)).encode()
    head = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {key}", f"content-length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def read_until(connection: RawConnection, end: bytes) -> bytes:
    """Read until `end` has come and return everything."""
    read = b""
    while end not in read:
        piece = connection.read()
        assert piece, read
        read += piece
    return read


@pytest.mark.parametrize("closes", ["server", "client"])
def test_a_stream_that_was_delivered_is_ok_whoever_closes_and_however_late_the_engine_ends(
    stack: Stack, scripted: ScriptedEngine, closes: str
) -> None:
    end = threading.Event()
    scripted.script = replace(stream_script(*WHOLE_STREAM), end=end)
    tenant = stack.tenant()
    lines = ["connection: close"] if closes == "server" else []
    with stack.gateway.http().raw() as connection:
        connection.send(request(tenant.key, *lines, model="odd"))
        read_until(connection, DONE.encode())
        if closes == "server":
            assert connection.closed()
    rows = all_closed(stack.dsn, tenant, 1)
    end.set()
    assert (rows[0]["status"], rows[0]["coverage"]) == ("ok", "exact")
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == (3, 2)


def test_an_end_that_comes_late_does_not_hide_the_hang_up_of_the_next_request(
    stack: Stack, scripted: ScriptedEngine
) -> None:
    end = threading.Event()
    scripted.script = replace(stream_script(*WHOLE_STREAM), end=end)
    tenant = stack.tenant()
    with stack.gateway.http().raw() as connection:
        connection.send(request(tenant.key, model="odd"))
        read_until(connection, b"0\r\n\r\n")
        slow = {"output_tokens": 3000, "tokens_per_second": 20}
        connection.send(request(tenant.key, model="sim", sim=slow))
        read_until(connection, b"data: ")
        end.set()
        wait_for(lambda: stack.engine.counters()["running"] == 1, "the second request runs")
    stack.engine.wait_for(lambda counters: counters["running"] == 0)
    rows = all_closed(stack.dsn, tenant, 2)
    assert [row["status"] for row in rows] == ["ok", "client_closed"]


@pytest.mark.parametrize("code", ["a\u0000b", "x" * 60_000, "two\r\nlines", "", "ünïcode"])
def test_a_code_that_is_none_does_not_reach_the_ledger(stack: Stack, scripted: ScriptedEngine, code: str) -> None:
    scripted.script = json_script({"error": {"message": "no", "code": code}}, 400)
    answer = stack.client().post(CHAT, chat(model="odd"))
    assert (answer.status, answer.error["code"]) == (400, "upstream_refused")
    row = closed_event(stack.dsn, answer.request_id)
    assert (row["status"], row["error_code"]) == ("upstream_error", "upstream_refused")


def test_a_usage_that_cannot_be_is_not_believed(stack: Stack, scripted: ScriptedEngine) -> None:
    impossible = {"prompt_tokens": 10**30, "completion_tokens": 1}
    scripted.script = json_script({"choices": [{"message": {"content": "x"}}], "usage": impossible})
    tenant = stack.tenant(tokens_per_minute=10_000)
    client = stack.gateway.http(tenant.key)
    answer = client.post(CHAT, chat(model="odd"))
    row = closed_event(stack.dsn, answer.request_id)
    assert row["coverage"] == "estimated"
    assert 0 < row["prompt_tokens"] < 1000
    assert client.post(CHAT, chat(model="odd")).status == 200, "the tenant is not buried in debt"
