"""The parts of an answer that are read: usage as engines spell it, and what counts as generated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.domain.usage import Coverage, TokenUsage
from gateway.relay.wire import TOKENS_MAX, estimated_tokens, read_answer


def read(**fields: Any) -> Any:
    return read_answer(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, (7, 0, 3, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0, 0, 0)),
        ({"prompt_tokens": 7, "total_tokens": 7}, (7, 0, 0, 0)),
        ({"completion_tokens": 3, "total_tokens": 10}, (7, 0, 3, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}, (7, 5, 3, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, (7, 7, 3, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}, (7, 0, 3, 0)),
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 4}},
            (7, 0, 3, 3),
        ),
        ({"prompt_tokens": -1, "completion_tokens": -1}, (0, 0, 0, 0)),
        ({"prompt_tokens": TOKENS_MAX, "completion_tokens": 1}, (TOKENS_MAX, 0, 1, 0)),
    ],
)
def test_usage_is_taken_as_said_and_cut_to_what_is_possible(
    usage: dict[str, Any], tokens: tuple[int, int, int, int]
) -> None:
    answer = read(choices=[], usage=usage)
    assert answer.usage.tokens() == TokenUsage(*tokens, coverage=Coverage.EXACT)


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 3}, {"prompt_tokens": None, "total_tokens": None}])
def test_usage_that_says_nothing_is_none(usage: dict[str, Any]) -> None:
    assert read(usage=usage).usage.tokens() is None


@pytest.mark.parametrize(
    ("choice", "size"),
    [
        ({"delta": {"content": "hello"}}, 5),
        ({"delta": {"content": None}}, 0),
        ({"delta": {"role": "assistant"}}, 0),
        ({"delta": {"reasoning_content": "why", "content": "x"}}, 4),
        ({"delta": {"reasoning": "why"}}, 3),
        ({"delta": {"refusal": "no"}}, 2),
        ({"delta": {"tool_calls": None}}, 0),
        ({"delta": {"tool_calls": []}}, 0),
        ({"delta": {"tool_calls": [{"index": 0}]}}, 0),
        ({"delta": {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "ls"}}]}}, 2),
        ({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}, {"function": {"name": "x"}}]}}, 4),
        ({"delta": {"tool_calls": [{"function": {"arguments": {"a": 1}}}]}}, 39),
        ({"message": {"content": "hello"}}, 5),
        ({"text": "hello"}, 5),
        ({}, 0),
    ],
)
def test_what_counts_as_generated(choice: dict[str, Any], size: int) -> None:
    assert [each.generated_bytes() for each in read(choices=[choice]).choices] == [size]


def test_content_of_an_unforeseen_type_costs_its_count_and_never_the_usage() -> None:
    answer = read(
        choices=[{"index": 1, "delta": {"content": [1]}, "finish_reason": "stop"}], usage={"prompt_tokens": 7}
    )
    assert answer.usage.tokens().prompt == 7
    assert [(each.index, each.finish_reason, each.generated_bytes()) for each in answer.choices] == [(1, "stop", 0)]


@pytest.mark.parametrize("data", [b"", b"[]", b"no JSON", b"\xff", b'{"choices": 7}', b'{"a":' * 100_000])
def test_what_is_no_answer_is_none(data: bytes) -> None:
    assert read_answer(data) is None


@pytest.mark.parametrize(("error", "failed"), [(None, False), ({}, True), ("x", True), ({"message": "m"}, True)])
def test_an_error_is_one_that_says_something(error: object, failed: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert read(choices=[], error=error).failed is failed


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (16, 1), (17, 5), (4_000, 1_000)])
def test_a_delta_is_one_token_unless_it_is_too_long_for_one(size: int, tokens: int) -> None:
    assert estimated_tokens(size) == tokens
