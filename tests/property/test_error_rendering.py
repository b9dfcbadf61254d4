"""Errors on the wire: nothing in a permanent one makes a client try again, and what it said is not lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.edge.errors import (
    DETAIL_CHARS_MAX,
    DETAIL_HEADER,
    RETRIED_WORDS,
    Header,
    error_event,
    render,
)
from gateway.errors import GatewayError, UpstreamRefused
from tests.support.permanent import every_class

WORDS = (
    *("429", "500", "502", "503", "504", "524", "529", "\x1429", "rate limit", "RATE_LIMIT", "too many requests"),
    *('rate"limit', "rate\\limit", "rate\tlimit", "server_error", "overloaded", "internal error", "terminated"),
    *("resource exhausted", "try again", "ECONNRESET", "etimedout", "timed out", "time-out", "socket hang up"),
)

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
texts = st.one_of(st.text(), st.lists(words, max_size=6).map("".join))
statuses = st.integers(400, 599)


errors = st.one_of(
    st.builds(
        UpstreamRefused,
        texts,
        status=statuses,
        code=st.one_of(st.none(), texts),
        kind=st.one_of(st.none(), texts),
        param=st.one_of(st.none(), texts),
    ),
    st.sampled_from([each for each in every_class() if each is not UpstreamRefused]).flatmap(
        lambda each: st.builds(
            each, texts, param=st.one_of(st.none(), texts), retry_after_s=st.one_of(st.none(), st.floats(0, 3_600))
        )
    ),
)


def shown(body: bytes) -> dict[str, Any]:
    """Return the error object as a client sees it; it is of OpenAI's shape."""
    document = json.loads(body)
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


def retried_by_words(body: bytes) -> bool:
    """Whether a client finds a word to retry on, in the body as it came or in what it says."""
    values = [str(value) for value in shown(body).values()]
    return any(RETRIED_WORDS.search(text) for text in [body.decode(), *values])


@given(errors)
@example(UpstreamRefused("monthly budget of $500 exceeded", status=402))
@example(UpstreamRefused('the field "rate"limit is wrong'))
@example(UpstreamRefused("x", status=404, code="500", kind="server_error", param="429"))
def test_a_permanent_error_never_looks_like_one_to_retry(error: GatewayError) -> None:
    body, headers = render(error)
    if not error.permanent:
        assert b"x-should-retry" not in dict(headers)
        return
    assert not retried_by_words(body)
    assert dict(headers)[b"x-should-retry"] == b"false"
    event = error_event(error)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert not retried_by_words(event[6:])
    assert shown(event[6:])["type"] != "server_error"


@given(errors)
def test_what_an_error_says_is_told_in_the_body_or_in_a_header(error: GatewayError) -> None:
    body, headers = render(error)
    detail = dict(headers).get(DETAIL_HEADER)
    if detail is None:
        assert shown(body) == {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
        return
    said = f"{error.code}: {error.message}"[:DETAIL_CHARS_MAX]
    assert len(detail) == len(said)
    assert all(char in ("?", told) for told, char in zip(said, detail.decode("ascii"), strict=True))


@given(errors)
def test_headers_are_safe_to_send(error: GatewayError) -> None:
    """One line of printable ASCII each, whatever an engine or a client put into a message."""
    headers: list[Header] = render(error)[1]
    for name, value in headers:
        assert name == name.lower()
        assert all(0x20 <= byte <= 0x7E for byte in name + value)


@given(st.sampled_from([408, 409, 429, 500, 502, 503, 504]), st.one_of(st.none(), st.floats(0, 1e6)))
def test_a_retry_is_asked_for_only_when_it_makes_sense(status: int, seconds: float | None) -> None:
    error = GatewayError("later", retry_after_s=seconds)
    error.status = status
    headers = dict(render(error)[1])
    if seconds is None:
        assert b"retry-after" not in headers
        return
    milliseconds = int(headers[b"retry-after-ms"])
    assert milliseconds >= 1
    assert abs(milliseconds - seconds * 1000) <= 1
    assert (milliseconds - 1) // 1000 + 1 == int(headers[b"retry-after"]), "whole seconds, never sooner"


@given(texts, st.sampled_from([500, 502, 503, 504, 429, 408]))
def test_a_passing_failure_in_a_stream_is_one_that_clients_retry(message: str, status: int) -> None:
    error = GatewayError(message)
    error.status = status
    assert shown(error_event(error)[6:])["type"] == "server_error"


@pytest.mark.parametrize("error", every_class(), ids=lambda each: each.__name__)
def test_every_error_has_a_status_and_a_code_that_are_true_to_each_other(error: type[GatewayError]) -> None:
    """A code that is retried on would stand in the body of a permanent error, whatever its message."""
    assert 400 <= error.status <= 599
    assert error.__doc__
    if error("").permanent:
        assert not RETRIED_WORDS.search(f"{error.code} {error.kind}")
