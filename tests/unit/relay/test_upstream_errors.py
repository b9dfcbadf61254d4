"""What an engine's errors become: the caller's own to mend, another engine's chance, or a pause."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import UpstreamBusy, UpstreamFailed, UpstreamRefused
from gateway.relay.upstream_errors import MESSAGE_CHARS_MAX, RETRY_AFTER_S_MAX, from_event, from_response

VLLM = {"error": {"message": "n must be 1", "type": "BadRequestError", "param": "n", "code": 400}}
OPENAI = {"error": {"message": "too long", "type": "x", "param": "messages", "code": "context_length_exceeded"}}
OLD_VLLM = {"object": "error", "message": "n must be 1", "type": "BadRequestError", "param": "n", "code": 400}
FASTAPI = {"detail": [{"loc": ["body", "n"], "msg": "n must be 1"}, {"msg": None}, {"msg": "m too"}]}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (encoded(VLLM), ("n must be 1", "upstream_refused", "n")),
        (encoded(OLD_VLLM), ("n must be 1", "upstream_refused", "n")),
        (encoded(OPENAI), ("too long", "context_length_exceeded", "messages")),
        (encoded({"error": "n must be 1"}), ("n must be 1", "upstream_refused", None)),
        (encoded({"detail": "n must be 1"}), ("n must be 1", "upstream_refused", None)),
        (encoded(FASTAPI), ("n must be 1; m too", "upstream_refused", None)),
        (b"<html>Bad Request</html>", ("the engine refused the request", "upstream_refused", None)),
        (b"\xff\xfe", ("the engine refused the request", "upstream_refused", None)),
        (b'{"detail":' + b"[" * 100_000, ("the engine refused the request", "upstream_refused", None)),
        (encoded({"error": {"message": 7}}), ("the engine refused the request", "upstream_refused", None)),
        (b"", ("the engine refused the request", "upstream_refused", None)),
    ],
    ids=["vllm", "old vllm", "openai", "text", "detail", "fastapi", "html", "bytes", "deep", "odd", "nothing"],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_caller_can_mend_keeps_status_and_words(
    body: bytes, said: tuple[str, str, str | None], status: int
) -> None:
    error = from_response(status, {}, body)
    assert isinstance(error, UpstreamRefused)
    assert (error.message, error.code, error.param) == said
    assert (error.status, error.kind) == (status, "invalid_request_error")
    assert error.permanent


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
        "Context length exceeded",
        "prompt is longer than max_model_len",
    ],
)
def test_a_prompt_that_is_too_long_is_told_by_the_code_that_clients_compact_on(message: str) -> None:
    error = from_response(400, {}, encoded({"error": {"message": message}}))
    assert error.code == "context_length_exceeded"


def test_words_are_bounded() -> None:
    error = from_response(400, {}, encoded({"error": {"message": "x" * 10_000}}))
    assert len(error.message) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize("status", [201, 204, 301, 302, 401, 403, 404, 405, 408, 500, 502, 503, 504, 599])
def test_what_the_gateway_or_the_engine_got_wrong_is_no_fault_of_the_caller(status: int) -> None:
    error = from_response(status, {}, encoded({"error": {"message": "secret of http://10.0.0.5"}}))
    assert isinstance(error, UpstreamFailed)
    assert error.status == 502
    assert "10.0.0.5" not in error.message


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"retry-after": b"7"}, 7.0),
        ({b"retry-after": b"7", b"retry-after-ms": b"1500"}, 1.5),
        ({b"retry-after": b"1e9"}, RETRY_AFTER_S_MAX),
        ({b"retry-after": b"-1"}, None),
        ({b"retry-after": b"inf"}, None),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({b"retry-after": b"\xff"}, None),
        ({b"retry-after": b"3", b"retry-after-ms": b"soon"}, 3.0),
    ],
)
def test_a_busy_engine_says_for_how_long(status: int, headers: dict[bytes, bytes], seconds: float | None) -> None:
    error = from_response(status, headers, b"")
    assert isinstance(error, UpstreamBusy)
    assert error.retry_after_s == seconds


@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        ({"error": {"message": "m", "code": 400}}, UpstreamRefused, 400),
        ({"error": {"message": "m", "code": 422, "type": "x"}}, UpstreamRefused, 422),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, UpstreamRefused, 400),
        ({"error": {"message": "m", "type": "BadRequestError", "code": 413}}, UpstreamRefused, 413),
        ({"error": {"message": "m", "code": 429}}, UpstreamBusy, 429),
        ({"error": {"message": "m", "code": 500}}, UpstreamFailed, 502),
        ({"error": {"message": "m", "code": 401}}, UpstreamFailed, 502),
        ({"error": {"message": "m", "type": "server_error", "code": "boom"}}, UpstreamFailed, 502),
        ({"error": "m"}, UpstreamFailed, 502),
        ({"error": {}}, UpstreamFailed, 502),
    ],
)
def test_an_error_inside_a_stream_is_told_by_what_it_says(event: dict[str, Any], kind: type, status: int) -> None:
    error = from_event(encoded(event))
    assert type(error) is kind
    assert error.status == status
    if kind is UpstreamRefused:
        assert error.message == "m"
