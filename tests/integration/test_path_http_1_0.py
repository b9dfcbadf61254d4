"""Clients of HTTP/1.0: no chunks, no interim answers; the end of an answer is the end of its connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat, completion
from tests.support.http import Answer
from tests.support.ledger import closed_event
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("http-1-0")) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


def ask(client: Http, method: str, path: str, document: object = None, *fields: str, version: str = "1.0") -> Answer:
    """Send a request of an old version and return what came until the connection was closed, which it must be."""
    body = b"" if document is None else json.dumps(document).encode()
    lines = [f"{method} {path} HTTP/{version}", f"authorization: Bearer {client.key}", f"content-length: {len(body)}"]
    with client.raw() as connection:
        connection.send("\r\n".join([*lines, *fields, "", ""]).encode() + body)
        came = b""
        while piece := connection.read():
            came += piece
    head, _, rest = came.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    found = dict(line.lower().split(": ", 1) for line in headers)
    assert "transfer-encoding" not in found
    assert found["connection"] == "close"
    return Answer(int(status.split()[1]), found, rest)


@pytest.mark.parametrize("fields", [(), ("connection: keep-alive",)], ids=["as it is", "keep-alive"])
@pytest.mark.parametrize(("path", "request_"), [(CHAT, chat(stream=True)), (TEXT, completion(stream=True))])
def test_a_stream_is_its_events_and_nothing_else(
    stack: Stack, client: Http, path: str, request_: dict[str, Any], fields: tuple[str, ...]
) -> None:
    answer = ask(client, "POST", path, request_, *fields)
    assert answer.status == 200
    assert "content-length" not in answer.headers
    *events, last, rest = answer.body.decode().split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events)
    assert closed_event(stack.dsn, answer.request_id)["status"] == "ok"


@pytest.mark.parametrize("version", ["0.9", "1.0"])
def test_a_whole_answer_has_its_length(client: Http, version: str) -> None:
    for answer in (
        ask(client, "POST", CHAT, chat(), version=version),
        ask(client, "GET", "/v1/models", version=version),
        ask(client, "GET", "/openapi.json", version=version),
    ):
        assert answer.status == 200
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.document


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("GET", "/nothing", 404), ("POST", "/admin/v1/keys", 401)]
)
def test_a_refusal_has_its_length(client: Http, method: str, path: str, status: int) -> None:
    answer = ask(client, method, path)
    assert (answer.status, int(answer.headers["content-length"])) == (status, len(answer.body))
    assert answer.error["code"]


def test_head_has_no_body(client: Http) -> None:
    answer = ask(client, "HEAD", "/v1/models")
    assert (answer.status, answer.body) == (200, b"")


def test_a_stream_that_fails_ends_with_the_error(client: Http) -> None:
    answer = ask(client, "POST", CHAT, chat(stream=True, sim={"abort_after_chunks": 3}))
    assert answer.status == 200
    *_, last, rest = answer.body.decode().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert rest == ""
    assert b"[DONE]" not in answer.body


def test_nobody_is_told_to_continue(client: Http) -> None:
    assert ask(client, "POST", CHAT, chat(), "expect: 100-continue").status == 200
