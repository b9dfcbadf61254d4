"""litellm's exceptions as an engine's answers; the classes here carry the names and attributes that litellm's do."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import UpstreamFailed, UpstreamTimeout
from gateway.providers.litellm_errors import ErrorAnswer, translated


def raised(name: str, message: str = "", *, cause: BaseException | None = None, **attributes: Any) -> BaseException:
    """Return an exception of a class with this name, raised from `cause`."""
    bases = {"Timeout": "APIConnectionError", "UnsupportedParamsError": "BadRequestError"}
    parent = type(bases.get(name, "APIError"), (Exception,), {})
    error: BaseException = type(name, (parent,), {})(message)
    for attribute, value in ({"message": message} | attributes).items():
        setattr(error, attribute, value)
    error.__cause__ = cause
    return error


def answered(status: int, **headers: str) -> BaseException:
    """Return what httpx raises for an answer."""
    error = type("HTTPStatusError", (Exception,), {"__module__": "httpx"})()
    error.response = SimpleNamespace(status_code=status, headers=headers)
    return raised("OpenAIError", status_code=status, cause=error)


def answer(error: BaseException) -> ErrorAnswer:
    found = translated(error)
    assert isinstance(found, ErrorAnswer)
    return found


def test_the_providers_own_words_status_code_and_field_are_kept() -> None:
    said = {"error": {"message": "stop must be text", "type": "BadRequestError", "param": "stop", "code": "bad_type"}}
    message = f"litellm.BadRequestError: Hosted_vllmException - {json.dumps(said)}"
    found = answer(raised("BadRequestError", message, status_code=400, cause=answered(422)))
    assert found == ErrorAnswer(422, "stop must be text", code="bad_type", param="stop")
    assert json.loads(found.body()) == {
        "error": {"message": "stop must be text", "type": "invalid_request_error", "param": "stop", "code": "bad_type"}
    }
    assert found.event() == b"data: " + found.body() + b"\n\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("litellm.BadRequestError: OpenAIException - a bad field", "a bad field"),
        ('litellm.BadRequestError: AnthropicException - b\'{"error":{"message":"too big"}}\'', "too big"),
        ('AnthropicError - {"type":"error","error":{"type":"api_error","message":"x"}}', "x"),
        ("plain words", "plain words"),
        ("BadRequestError: none. To drop these, set `litellm.drop_params=True` or for proxy:\n...", "none."),
        ("BadRequestError: 'role'\nReceived Messages=[{'content': 'secret'}]", "'role'"),
    ],
)
def test_litellms_names_and_advice_are_taken_off(text: str, words: str) -> None:
    assert answer(raised("BadRequestError", text, status_code=400)).message == words


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ContextWindowExceededError", "context_length_exceeded"),
        ("ContentPolicyViolationError", "content_policy_violation"),
        ("UnsupportedParamsError", "unsupported_parameter"),
    ],
)
def test_what_litellm_understood_has_a_code_and_is_a_bad_request(name: str, code: str) -> None:
    found = answer(raised(name, "litellm.X: too long", status_code=500, cause=answered(500)))
    assert (found.status, found.code) == (400, code)


def test_a_file_that_would_have_to_be_fetched_is_refused_in_our_words() -> None:
    found = answer(raised("ImageFetchError", "download is disabled url=http://10.0.0.1/secret", status_code=400))
    assert found.status == 400
    assert "http" not in found.message


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
def test_busy_comes_with_the_time_to_wait(header: str) -> None:
    found = answer(raised("RateLimitError", "slow down", status_code=429, litellm_response_headers={header: "7"}))
    assert (found.status, found.headers) == (429, {header.encode(): b"7"})
    found = answer(raised("RateLimitError", "slow down", status_code=429, cause=answered(429, **{header: "7"})))
    assert found.headers == {header.encode(): b"7"}
    found = answer(raised("RateLimitError", "slow", status_code=429, litellm_response_headers={header: "\n" * 200}))
    assert json.loads(found.body())["error"]["type"] == "server_error"
    assert found.headers == {}


@pytest.mark.parametrize("status", [401, 403, 404, 413, 500, 529])
def test_the_status_is_the_providers_not_that_of_litellms_class(status: int) -> None:
    assert answer(raised("InternalServerError", "x", status_code=500, cause=answered(status))).status == status
    assert answer(raised("APIConnectionError", "x", status_code=500, cause=answered(status))).status == status


def test_silence_is_a_timeout() -> None:
    assert isinstance(translated(raised("Timeout", "x", status_code=408)), UpstreamTimeout)
    assert isinstance(translated(raised("InternalServerError", status_code=500, cause=TimeoutError())), UpstreamTimeout)
    silent = type("ReadTimeout", (Exception,), {"__module__": "httpx"})()
    assert isinstance(translated(raised("APIConnectionError", status_code=500, cause=silent)), UpstreamTimeout)


def test_a_connection_that_failed_is_a_failure_whatever_status_litellm_gives_it() -> None:
    broken = type("ConnectError", (Exception,), {"__module__": "httpx"})()
    wrapped = raised("OpenAIError", status_code=500, cause=broken)
    assert isinstance(translated(raised("InternalServerError", status_code=500, cause=wrapped)), UpstreamFailed)
    assert isinstance(translated(raised("APIConnectionError", status_code=500, cause=OSError())), UpstreamFailed)


def test_the_end_of_a_stream_that_had_begun_is_what_ended_it() -> None:
    inner = raised("APIConnectionError", status_code=500, cause=ConnectionResetError())
    outer = raised("MidStreamFallbackError", status_code=503, original_exception=inner)
    assert isinstance(translated(outer), UpstreamFailed)
    inner = raised("RateLimitError", "slow", status_code=429)
    assert answer(raised("MidStreamFallbackError", status_code=503, original_exception=inner)).status == 429


@pytest.mark.parametrize("fault", [KeyError("image_url"), TypeError("x"), AttributeError("x"), ValueError("x")])
def test_what_the_translation_stumbles_over_is_the_requests_fault(fault: Exception) -> None:
    for error in (fault, raised("APIConnectionError", "Traceback: /srv/app", status_code=500, cause=fault)):
        found = answer(error)
        assert (found.status, found.code) == (400, "untranslatable")
        assert type(fault).__name__ in found.message
        assert "Traceback" not in found.message


def test_an_answer_that_is_no_json_is_the_providers_fault() -> None:
    fault = json.JSONDecodeError("x", "<html>", 0)
    assert isinstance(translated(raised("APIConnectionError", status_code=500, cause=fault)), UpstreamFailed)
    assert isinstance(translated(RuntimeError("x")), UpstreamFailed)


def test_a_ring_of_causes_ends() -> None:
    first, second = raised("APIConnectionError"), raised("APIConnectionError")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(translated(first), UpstreamFailed)
