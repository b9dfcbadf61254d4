"""Streams of Anthropic's dialect and of the Responses: what passes, what is counted, and what ends them properly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.usage import NO_USAGE, Coverage, Status, TokenUsage
from gateway.relay.messages import STOP_EVENT, MessagesPump
from gateway.relay.meter import Meter
from gateway.relay.pump import HELD_EVENTS_MAX
from gateway.relay.responses import ResponsesPump
from gateway.relay.sse import EventSplitter, data_of
from tests.unit.relay.events import MODEL, message_stream, response_stream, typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.relay.pump import Pump

ASKED = "alias"
PUMPS = {"messages": MessagesPump, "responses": ResponsesPump}


class Passed(NamedTuple):
    """What came of a stream. `ended` is None where it may not end properly."""

    out: bytes
    ended: bytes | None
    failure: bytes | None
    usage: TokenUsage


def passed(kind: str, pieces: Iterable[bytes], status: Status = Status.OK) -> Passed:
    """Send a stream in these pieces through a pump."""
    meter = Meter(1, 99)
    meter.sent(0.0)
    pump: Pump = PUMPS[kind](ASKED, meter)
    out = b"".join([pump.feed(piece, 1.0) for piece in pieces]) + pump.finish(2.0)
    usage = meter.usage(status, output_estimate_max=99, output_per_s=1.0, streamed=True, ended_s=3.0)
    return Passed(out, pump.ending if pump.complete else None, pump.failure, usage)


def documents(stream: bytes) -> list[dict[str, Any]]:
    """Return what a stream says."""
    return [json.loads(data_of(event)) for event in EventSplitter().feed(stream)]


def renamed(events: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return what these events say, with the model called what the client called it."""
    return json.loads(json.dumps(documents(b"".join(events))).replace(MODEL, ASKED))  # type: ignore[no-any-return] # a list went in


def test_a_message_passes_but_for_the_models_name_and_its_usage_is_the_engines() -> None:
    events = message_stream("one", "two", usage={"input_tokens": 14, "cache_read_input_tokens": 16, "output_tokens": 3})
    result = passed("messages", events)
    passing = [event for event in events[:-1] if b"ping" not in event]
    assert documents(result.out) == renamed(passing)
    assert result.ended == STOP_EVENT
    assert result.out.endswith(b"".join(passing[1:])), "the same bytes"
    assert result.usage == TokenUsage(prompt=30, cached=16, completion=3)


def test_a_message_says_its_prompt_first_and_its_completion_last() -> None:
    """As Anthropic itself does; tokens that a cache was written for are prompt, too."""
    events = message_stream("one")
    events[0] = typed(
        {
            "type": "message_start",
            "message": {
                "model": MODEL,
                "usage": {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100},
            },
        }
    )
    assert passed("messages", events).usage == TokenUsage(prompt=125, cached=100, completion=2)


@pytest.mark.parametrize("delta", [{"thinking": "hm"}, {"partial_json": '{"a"'}, {"text": "hi"}])
def test_whatever_a_message_is_made_of_is_counted(delta: dict[str, str]) -> None:
    events = [*message_stream(stop_reason=None), typed({"type": "content_block_delta", "index": 0, "delta": delta})]
    assert passed("messages", events, Status.CLIENT_CLOSED).usage.completion == 1


def test_a_message_that_breaks_off_is_priced_by_what_was_said_of_its_prompt() -> None:
    result = passed("messages", message_stream("one", "two", stop_reason=None), Status.CLIENT_CLOSED)
    assert result.ended is None
    assert result.usage == TokenUsage(prompt=30, completion=2, coverage=Coverage.ESTIMATED)


def test_a_message_without_its_last_event_may_end_properly() -> None:
    assert passed("messages", message_stream("one")[:-1]).ended == STOP_EVENT


def test_what_an_engine_says_after_the_end_is_not_passed() -> None:
    for kind, events in (("messages", message_stream("one")), ("responses", response_stream("one"))):
        after = passed(kind, [*events, b"data: [DONE]\n\n", *events])
        assert after == passed(kind, events)


def test_a_response_passes_but_for_the_models_name_and_its_usage_is_the_engines() -> None:
    events = response_stream("one", "two")
    result = passed("responses", events)
    assert result.ended is not None
    assert documents(result.out + result.ended) == renamed(events)
    assert result.usage == TokenUsage(prompt=30, cached=16, completion=3, reasoning=1)


@pytest.mark.parametrize("kind", PUMPS)
def test_the_end_mark_of_another_dialect_is_no_end(kind: str) -> None:
    events = message_stream("one") if kind == "messages" else response_stream("one")
    mark = b"data: [DONE]\n\n"
    early = passed(kind, [*events[:-2], mark, *events[-2:]])
    assert early == passed(kind, events)
    cut = message_stream("one", stop_reason=None) if kind == "messages" else response_stream("one", end=None)
    assert passed(kind, [*cut, mark]) == passed(kind, cut)
    assert passed(kind, cut).ended is None


def test_an_incomplete_response_has_ended_and_a_cut_one_has_not() -> None:
    incomplete = passed("responses", response_stream("one", end="incomplete"))
    assert incomplete.ended is not None
    assert incomplete.ended.startswith(b"event: response.incomplete\n")
    cut = passed("responses", response_stream("one", "two", end=None), Status.CLIENT_CLOSED)
    assert cut.ended is None
    assert cut.usage == TokenUsage(prompt=99, completion=2, coverage=Coverage.ESTIMATED)


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("messages", {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
        ("responses", {"type": "error", "code": "server_error", "message": "broken", "param": None}),
        ("responses", {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}}}),
        ("responses", {"type": "response.failed", "response": {"id": "resp_1"}}),
    ],
)
def test_an_error_in_the_stream_is_held_back(kind: str, event: dict[str, Any]) -> None:
    before = message_stream("one", stop_reason=None) if kind == "messages" else response_stream("one", end=None)
    result = passed(kind, [*before, typed(event), *before])
    assert (result.ended, result.out) == (None, passed(kind, before).out)
    assert result.out
    assert result.failure is not None
    assert json.loads(result.failure) == event.get("response", event)


@pytest.mark.parametrize("kind", PUMPS)
def test_nothing_goes_out_before_the_first_content(kind: str) -> None:
    """So that another engine can take over from one that greets and then fails."""
    events = message_stream() if kind == "messages" else response_stream()
    greeting = [event for event in events if b'"in_progress"' in event or b"_start" in event or b"ping" in event]
    assert 2 <= len(greeting) < len(events)
    assert passed(kind, greeting) == Passed(b"", None, None, passed(kind, greeting).usage)
    assert passed(kind, greeting * HELD_EVENTS_MAX).out, "but not without bound"
    whole = passed(kind, events)
    assert whole.ended is not None
    assert renamed(greeting[:1])[0] == documents(whole.out + whole.ended)[0]


@pytest.mark.parametrize("kind", PUMPS)
def test_events_of_no_known_shape_pass_as_they_came(kind: str) -> None:
    odd = [
        b"event: new\ndata: [1,2]\n\n",
        b'data: {"type":"message_start","message":5}\n\n',
        b'data: {"type":"response.created","response":"x"}\n\n',
        b'data: {"type":"message_delta","delta":{"stop_reason":7},"usage":"much"}\n\n',
        b"event: bare\n\n",
    ]
    result = passed(kind, [b": a comment\n\n", *odd])
    assert (result.out, result.ended, result.failure) == (b"".join(odd), None, None)


@pytest.mark.parametrize("kind", PUMPS)
def test_what_is_no_json_ends_a_stream_and_does_not_reach_the_client(kind: str) -> None:
    before = message_stream("one", stop_reason=None) if kind == "messages" else response_stream("one", end=None)
    result = passed(kind, [*before, b"data: not json\n\n", *before])
    assert (result.ended, result.failure, result.out) == (None, b"not json", passed(kind, before).out)


@pytest.mark.parametrize("usage", [{}, {"input_tokens": "many"}, {"input_tokens": 10**9}, None, "x"])
def test_impossible_usage_is_no_usage(usage: object) -> None:
    message = message_stream("one")
    message[0] = typed({"type": "message_start", "message": {"usage": usage}})
    message[-2] = typed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    for kind, events in (("messages", message), ("responses", response_stream("one", usage=usage))):
        result = passed(kind, events)
        assert result.ended is not None
        assert result.usage == TokenUsage(prompt=99, completion=1, coverage=Coverage.ESTIMATED)


@given(st.sampled_from(sorted(PUMPS)), st.lists(st.text(max_size=20), max_size=4), st.data())
def test_cuts_anywhere_change_nothing(kind: str, texts: list[str], draw: st.DataObject) -> None:
    stream = b"".join(message_stream(*texts) if kind == "messages" else response_stream(*texts))
    at = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]
    assert passed(kind, pieces) == passed(kind, [stream])
    assert passed(kind, [stream]).usage != NO_USAGE
