"""Addresses, methods and keys: what is there, what is not, and what is for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.refusals import assert_refused
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
    with running_stack(databases, servers, tmp_path_factory.mktemp("addresses")) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


def keys(stack: Stack) -> list[dict[str, str]]:
    """Return headers that no key is in."""
    key = stack.tenant().key
    public, _, secret = key.rpartition("_")
    other = stack.tenant().key.rpartition("_")[2]
    return [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {key}"},
        {"authorization": key},
        {"authorization": f"Bearer {key}x"},
        {"authorization": f"Bearer {key[:-1]}"},
        {"authorization": f"Bearer {public}_{secret[::-1]}"},
        {"authorization": f"Bearer {public}_{other}"},
        {"authorization": f"Bearer {key.upper()}"},
        {"authorization": "Bearer sk-pst-"},
        {"authorization": "Bearer " + "k" * 5000},
        {"authorization": "Bearer sk-pst-\xe4\xff"},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"authorization": f"Bearer {key.replace('sk-pst-', 'adm-pst-')}"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {key}"},
    ]


@pytest.mark.parametrize("method_and_path", [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/sim")], ids=str)
def test_what_is_no_key_is_refused(stack: Stack, method_and_path: tuple[str, str]) -> None:
    method, path = method_and_path
    for headers in keys(stack):
        body = chat() if method == "POST" else None
        answer = stack.gateway.http().ask(method, path, body, headers)
        assert_refused(answer, 401, "invalid_api_key")
        assert all(value[7:] not in answer.body.decode() for value in headers.values() if len(value) > 30)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", TEXT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("PATCH", "/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/api/v1/models/sim", "GET"),
        ("TRACE", "/v1/models", "GET"),
        ("POST", "/livez", "GET"),
    ],
)
def test_a_wrong_method_is_refused_and_told_the_right_one(client: Http, method: str, path: str, allowed: str) -> None:
    answer = client.ask(method, path)
    assert_refused(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/chat/completions",
        "/v1/v1/chat/completions",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions%00",
        "/v1/../v1/chat/completions",
        "/v1/models/",
        "/v1/chat%2Fcompletions%2e",
        "/v1/nothing",
        "/v1/" + "a" * 8000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_with_a_wrong_address_is_told_in_its_own_words(client: Http, method: str, path: str) -> None:
    assert_refused(client.ask(method, path, {} if method == "POST" else None), 404, "not_found")


def test_a_wrong_base_url_is_told_however_large_the_body_is(client: Http) -> None:
    """What a coding agent says first is larger than what the control plane takes."""
    answer = client.post("/v1/v1/messages", chat("word " * 50_000))
    assert (answer.status, answer.document["type"]) == (404, "error"), answer
    error = answer.document["error"]
    assert (error["type"], error["code"]) == ("not_found_error", "not_found")
    assert "'/v1/v1/messages'; for their base URL" in error["message"]


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/api/models", "/%ff", "/admin", "/" + "a" * 8000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_any_other_unknown_address_is_not_found(client: Http, method: str, path: str) -> None:
    answer = client.ask(method, path, {} if method == "POST" else None)
    assert (answer.status, answer.document["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/readyz", "/health"])
def test_head_is_get_without_a_body(client: Http, path: str) -> None:
    answer, got = client.ask("HEAD", path), client.get(path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == got.headers["content-length"]


def test_a_query_is_ignored(client: Http) -> None:
    assert client.post(f"{CHAT}?beta=true&x=%ff", chat()).status == 200
