"""What is billed: the engine's word where there is one, what went by where there is none, never nothing for work."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain.usage import NO_USAGE, Coverage, Status, TokenUsage
from gateway.relay.meter import Meter
from gateway.relay.wire import read_answer

PROMPT_ESTIMATE = 70
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


def count(meter: Meter, at_s: float = 1.0, **fields: Any) -> None:
    answer = read_answer(json.dumps(fields).encode())
    assert answer is not None
    meter.count(answer, at_s)


def delta(text: str, index: int = 0, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}


def billed(meter: Meter, status: Status, *, streamed: bool = True, ended_s: float = 10.0) -> TokenUsage:
    return meter.usage(
        status,
        output_estimate_max=100,
        output_per_s=5.0,
        streamed=streamed,
        ended_s=ended_s,
    )


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_no_engine_saw_is_free(status: Status, streamed: bool) -> None:  # noqa: FBT001 - pytest passes by name
    assert billed(Meter(1, PROMPT_ESTIMATE), status, streamed=streamed) == NO_USAGE


@pytest.mark.parametrize("status", Status)
def test_the_engines_word_counts(status: Status) -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    count(meter, choices=[delta("hello there")])
    count(meter, choices=[], usage=USAGE)
    coverage = Coverage.EXACT if status is Status.OK else Coverage.ESTIMATED
    assert billed(meter, status) == TokenUsage(prompt=7, cached=2, completion=3, coverage=coverage)


def test_an_explicit_zero_is_a_zero_and_not_missing() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    count(meter, choices=[delta("hello")], usage={"prompt_tokens": 0, "completion_tokens": 0})
    assert billed(meter, Status.OK) == NO_USAGE


def test_the_last_usage_counts_and_an_empty_one_does_not() -> None:
    """`continuous_usage_stats`: a running count in every chunk."""
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    for completion in (1, 2, 3):
        count(meter, choices=[delta("x")], usage={"prompt_tokens": 7, "completion_tokens": completion})
    count(meter, choices=[], usage={})
    assert billed(meter, Status.CLIENT_CLOSED).completion == 3


@pytest.mark.parametrize("status", [Status.OK, Status.CLIENT_CLOSED, Status.INTERRUPTED, Status.UPSTREAM_ERROR])
def test_without_it_deltas_are_counted(status: Status) -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    for _ in range(5):
        count(meter, choices=[delta("word ")])
    assert billed(meter, status) == TokenUsage(prompt=PROMPT_ESTIMATE, completion=5, coverage=Coverage.ESTIMATED)


@pytest.mark.parametrize(
    ("status", "streamed", "completion"),
    [
        (Status.CLIENT_CLOSED, False, 50),
        (Status.INTERRUPTED, False, 50),
        (Status.CLIENT_CLOSED, True, 0),
        (Status.OK, False, 0),
    ],
)
def test_an_answer_nobody_waited_for_is_estimated_from_the_time_the_engine_had(
    status: Status,
    streamed: bool,  # noqa: FBT001 - pytest passes by name
    completion: int,
) -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    usage = billed(meter, status, streamed=streamed)
    assert usage == TokenUsage(prompt=PROMPT_ESTIMATE, completion=completion, coverage=Coverage.ESTIMATED)


def test_that_estimate_is_never_nothing_and_bounded_by_what_was_reserved() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    assert billed(meter, Status.CLIENT_CLOSED, streamed=False, ended_s=1e-6).completion == 1
    assert billed(meter, Status.CLIENT_CLOSED, streamed=False, ended_s=1e6).completion == 100


def test_an_engine_that_failed_before_it_generated_anything_is_free() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    free = billed(meter, Status.UPSTREAM_ERROR, streamed=False)
    assert free == replace(NO_USAGE, coverage=Coverage.ESTIMATED), "what it computed until then, nobody knows"


def test_an_engine_that_declined_has_certainly_done_nothing() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    meter.declined()
    for status in (Status.UPSTREAM_ERROR, Status.CLIENT_CLOSED):
        assert billed(meter, status, streamed=False) == NO_USAGE
    meter.sent(0.0)
    meter.sent(1.0)
    meter.declined()
    assert billed(meter, Status.UPSTREAM_ERROR).coverage is Coverage.ESTIMATED, "the one before it may have"


def test_a_failed_attempt_is_forgotten_but_that_an_engine_was_asked_is_not() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    meter.sent(0.0)
    count(meter, choices=[delta("hello", finish_reason="stop")], usage=USAGE)
    meter.reset()
    assert not meter.finished
    assert not meter.consistent
    assert (meter.completion_tokens, meter.first_token_s, meter.last_token_s, meter.sent_s) == (0, None, None, 0.0)
    assert billed(meter, Status.CLIENT_CLOSED).prompt == PROMPT_ESTIMATE


def test_first_and_last_token_are_those_with_content() -> None:
    meter = Meter(1, PROMPT_ESTIMATE)
    count(meter, 1.0, choices=[{"delta": {"role": "assistant"}}])
    count(meter, 2.0, choices=[delta("a")])
    count(meter, 3.0, choices=[delta("b")])
    count(meter, 4.0, choices=[delta("", finish_reason="stop")])
    assert (meter.first_token_s, meter.last_token_s) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("choices", "ends", "finished", "consistent"),
    [
        (1, [], False, False),
        (1, [(0, None)], False, False),
        (1, [(0, None), (0, "stop")], True, True),
        (2, [(0, None), (1, None), (0, "stop")], False, False),
        (2, [(0, None), (1, None), (0, "stop"), (1, "length")], True, True),
        (2, [(0, "stop")], False, True),
    ],
)
def test_all_choices_asked_for_must_end_unless_the_engine_says_that_it_is_done(
    choices: int,
    ends: list[tuple[int, str | None]],
    finished: bool,  # noqa: FBT001 - pytest passes by name
    consistent: bool,  # noqa: FBT001 - pytest passes by name
) -> None:
    meter = Meter(choices, PROMPT_ESTIMATE)
    for index, finish_reason in ends:
        count(meter, choices=[delta("a", index, finish_reason)])
    assert (meter.finished, meter.consistent) == (finished, consistent)
