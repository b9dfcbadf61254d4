"""Answers as a replay reads them: usage, the first token, and what is no answer."""

from __future__ import annotations

import json

import pytest

from gateway.dev.replay.errors import ConnectionLost, Unreadable
from gateway.dev.replay.reading import StreamReading, WholeReading

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
WORD = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_read_in_whatever_pieces_it_comes(size: int) -> None:
    data = b": keep-alive\n\n" + stream(ROLE, WORD, {"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
    reading = StreamReading()
    for at in range(0, len(data), size):
        reading.feed(data[at : at + size])
    reading.end()
    assert reading.usage is not None
    assert (reading.usage.prompt_tokens, reading.usage.completion_tokens, reading.usage.cached_tokens) == (9, 4, 8)
    assert reading.first_token_s is not None
    assert not reading.failed


@pytest.mark.parametrize(
    "delta", [{"content": "a"}, {"reasoning": "a"}, {"reasoning_content": "a"}, {"tool_calls": [{"index": 0}]}]
)
def test_whatever_is_said_first_is_the_first_token(delta: object) -> None:
    reading = StreamReading()
    reading.feed(stream(ROLE, {"choices": [{"delta": delta}]}))
    assert reading.first_token_s is not None


def test_a_role_is_no_token() -> None:
    reading = StreamReading()
    reading.feed(stream(ROLE))
    assert reading.first_token_s is None


def test_a_stream_without_an_end_is_broken_off() -> None:
    reading = StreamReading()
    reading.feed(stream(WORD))
    with pytest.raises(ConnectionLost, match="DONE"):
        reading.end()


def test_an_error_in_a_stream_is_a_failure_of_it() -> None:
    reading = StreamReading()
    reading.feed(stream(WORD, {"error": {"message": "no"}}))
    reading.end()
    assert reading.failed


def test_a_finish_reason_is_an_end_too() -> None:
    reading = StreamReading()
    reading.feed(stream(WORD, {"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    reading.end()
    assert not reading.done
    assert not reading.failed


@pytest.mark.parametrize("body", [b"{}", b'{"choices": []}'])
def test_an_answer_without_choices_is_none(body: bytes) -> None:
    whole = WholeReading()
    whole.feed(body)
    with pytest.raises(Unreadable, match="without choices"):
        whole.end()


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b'{"usage": 1}'])
def test_what_cannot_be_read_is_no_answer(body: bytes) -> None:
    whole = WholeReading()
    whole.feed(body)
    with pytest.raises(ConnectionLost, match="cannot be read"):
        whole.end()
    with pytest.raises(Unreadable, match="cannot be read"):
        StreamReading().feed(b"data: " + body + b"\n")


def test_a_whole_answer_may_tell_no_cache() -> None:
    whole = WholeReading()
    whole.feed(json.dumps({"choices": [{}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}).encode())
    whole.end()
    assert whole.usage is not None
    assert whole.usage.cached_tokens == 0
