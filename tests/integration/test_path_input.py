"""Requests that are wrong: each is refused with its status, its code and the field at fault, in OpenAI's shape.

Nothing of it is a fault of the gateway's: the stack's own end asserts that the log has none.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat, completion, embedding
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

BODY_BYTES_MAX = 256 * 1024
CHAT, TEXT, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HI = '"messages": [{"role": "user", "content": "hi"}]'


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that takes small bodies only."""
    folder = tmp_path_factory.mktemp("input")
    with running_stack(databases, servers, folder, body_bytes_max=BODY_BYTES_MAX) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


BODIES: list[tuple[str, bytes, str | None]] = [
    ("nothing", b"", None),
    ("no JSON", b"hello", None),
    ("half of it", b'{"model": "sim", ' + HI.encode(), None),
    ("more than one", b"{}{}", None),
    ("a list", b"[]", None),
    ("a string", b'"model"', None),
    ("null", b"null", None),
    ("no UTF-8", b'{"model": "sim\xff", "messages": []}', "model"),
    ("a key that is no UTF-8", b'{"\xff": 1}', None),
    ("compressed", b"\x1f\x8b\x08\x00", None),
    ("a byte order mark", b"\xef\xbb\xbf{}", None),
    ("NaN", b'{"model": "sim", "temperature": NaN}', None),
    ("single quotes", b"{'model': 'sim'}", None),
    ("a trailing comma", b'{"model": "sim",}', None),
    ("a comment", b'{"model": "sim" /* hi */}', None),
    ("deep lists", b'{"model": "sim", "messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", None),
    ("deep objects", b'{"model": "sim", "messages": [' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"]}", None),
    ("no model", b'{"messages": []}', "model"),
    ("no messages", b'{"model": "sim"}', "messages"),
    ("messages null", b'{"model": "sim", "messages": null}', "messages"),
    ("messages text", b'{"model": "sim", "messages": "hi"}', "messages"),
    ("messages an object", b'{"model": "sim", "messages": {}}', "messages"),
]
FIELDS: list[tuple[str, str, str | None]] = [
    ("model null", '"model": null', "model"),
    ("model a number", '"model": 5', "model"),
    ("model a list", '"model": ["sim"]', "model"),
    ("model half a pair", '"model": "\\ud800"', None),
    ("stream text", '"model": "sim", "stream": "true"', "stream"),
    ("stream a number", '"model": "sim", "stream": 1', "stream"),
    ("stream_options text", '"model": "sim", "stream": true, "stream_options": "x"', "stream_options"),
    ("stream_options a list", '"model": "sim", "stream": true, "stream_options": []', "stream_options"),
    (
        "include_usage text",
        '"model": "sim", "stream": true, "stream_options": {"include_usage": "x"}',
        "stream_options",
    ),
    ("n text", '"model": "sim", "n": "1"', "n"),
    ("n zero", '"model": "sim", "n": 0', "n"),
    ("n below", '"model": "sim", "n": -1', "n"),
    ("n huge", '"model": "sim", "n": 129', "n"),
    ("n a fraction", '"model": "sim", "n": 1.5', "n"),
    ("n endless", '"model": "sim", "n": 1e999', "n"),
    ("max_tokens text", '"model": "sim", "max_tokens": "many"', "max_tokens"),
    ("max_tokens below", '"model": "sim", "max_tokens": -1', "max_tokens"),
    ("max_tokens a list", '"model": "sim", "max_tokens": [1]', "max_tokens"),
    ("max_tokens endless", '"model": "sim", "max_tokens": ' + "9" * 5000, "max_tokens"),
    ("max_completion_tokens", '"model": "sim", "max_completion_tokens": true', "max_completion_tokens"),
    ("keys by case", '"model": "sim", "Model": "other"', "Model"),
    ("unknown keys by case", '"model": "sim", "abc": 1, "aBc": 2', "aBc"),
    ("owned key in capitals", '"model": "sim", "MAX_TOKENS": 9', "MAX_TOKENS"),
    ("owned key with a capital", '"model": "sim", "Stream": true', "Stream"),
    ("owned key in another script", '"model": "sim", "\\u017ftream": true', "\u017ftream"),
]


@pytest.mark.parametrize(("body", "param"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_wrong_body_is_refused(client: Http, body: bytes, param: str | None) -> None:
    assert_refused(client.post(CHAT, body), 400, "invalid_request", param)


@pytest.mark.parametrize(("fields", "param"), [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS])
def test_a_wrong_field_is_refused_by_name(client: Http, fields: str, param: str | None) -> None:
    assert_refused(client.post(CHAT, f"{{{fields}, {HI}}}".encode()), 400, "invalid_request", param)


@pytest.mark.parametrize(
    ("path", "request_", "param"),
    [
        (TEXT, {"model": "sim"}, "prompt"),
        (TEXT, {"model": "sim", "prompt": 5}, "prompt"),
        (TEXT, {"model": "sim", "prompt": {}}, "prompt"),
        (TEXT, completion(n=200), "n"),
        (VECTORS, {"model": "sim"}, "input"),
        (VECTORS, {"model": "sim", "input": None}, "input"),
        (VECTORS, {"model": "sim", "input": False}, "input"),
    ],
)
def test_each_endpoint_names_its_own_fields(client: Http, path: str, request_: dict[str, Any], param: str) -> None:
    assert_refused(client.post(path, request_), 400, "invalid_request", param)


@pytest.mark.parametrize(
    "name",
    ["nothing", "SIM", "", " sim", "m" * 5000, "gpt-500-timeout", "überläufer", 'a"b\\c', "a\nb", "try again later"],
)
def test_an_unknown_model_is_not_found(client: Http, name: str) -> None:
    assert_refused(client.post(CHAT, chat(model=name)), 404, "model_not_found", "model")


def test_what_an_error_quotes_goes_into_a_header_when_clients_would_retry_on_it(client: Http) -> None:
    answer = client.post(CHAT, chat(model="gpt-429-overloaded"))
    assert_refused(answer, 404, "model_not_found", "model")
    assert "gpt-429-overloaded" in answer.headers["x-penstock-error-detail"]


def test_a_model_that_is_not_for_the_key_is_forbidden(stack: Stack) -> None:
    refused = stack.client(models=["other"]).post(CHAT, chat())
    assert_refused(refused, 403, "model_not_allowed", "model")


def test_a_body_over_the_bound_is_too_large(client: Http) -> None:
    assert_refused(client.post(CHAT, chat("x" * BODY_BYTES_MAX)), 413, "request_too_large")
    padding = b" " * (BODY_BYTES_MAX - len(json.dumps(chat())))
    assert client.post(CHAT, json.dumps(chat()).encode() + padding).status == 200


@pytest.mark.parametrize("path", [CHAT, TEXT, VECTORS])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip", "gzip, identity", "429", ""])
def test_a_compressed_body_is_told_what_to_drop(client: Http, path: str, encoding: str) -> None:
    answer = client.post(path, gzip.compress(json.dumps(chat()).encode()), {"content-encoding": encoding})
    assert_refused(answer, 415, "unsupported_encoding")
    assert "'content-encoding'" in answer.error["message"]
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["identity", "Identity"])
def test_a_body_that_is_said_to_be_as_it_is_is_read(client: Http, encoding: str) -> None:
    assert client.post(CHAT, chat(), {"content-encoding": encoding}).status == 200


def test_doubled_keys_reach_the_engine_once(stack: Stack, client: Http) -> None:
    body = f'{{"model": "other", "model": "sim", "n": 3, "n": 2, "x": 1, "x": 2, "messages": [], {HI}}}'
    assert len(client.post(CHAT, body.encode()).document["choices"]) == 2
    sent = stack.engine.state()["requests"][-1]
    assert sent["body"] == {**chat("hi"), "n": 2, "x": 2}
    spaces_in_values = 3
    assert sent["body_bytes"] == len(json.dumps(sent["body"], separators=(",", ":"))) + spaces_in_values


def test_refusals_are_counted_by_code(stack: Stack, client: Http) -> None:
    series = 'penstock_refused_requests_total{code="model_not_found"}'
    before = stack.gateway.metrics().get(series, 0)
    client.post(CHAT, chat(model="nothing"))
    assert stack.gateway.metrics()[series] == before + 1


def test_an_embedding_takes_no_stream(stack: Stack, client: Http) -> None:
    answer = client.post(VECTORS, embedding(stream=True))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
