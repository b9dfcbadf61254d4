"""A stream that is stopped in the middle because a budget is spent: a proper end in every dialect, then the reason."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.errors import BudgetExceeded
from gateway.relay.messages import MessagesPump
from gateway.relay.meter import Meter
from gateway.relay.relay import Progress, Relay
from gateway.relay.responses import ResponsesPump
from gateway.relay.sse import EventSplitter, data_of
from gateway.relay.stream_pump import StreamPump
from tests.unit.relay.events import message_stream, response_stream
from tests.unit.relay.scripted import Client, Engine, attempts, call, stream_response

if TYPE_CHECKING:
    from gateway.relay.pump import Pump


def _chunk(index: int, text: str, finish: str | None = None, kind: str = "chat.completion.chunk") -> dict[str, Any]:
    content = {"text": text} if kind == "text_completion" else {"delta": {"content": text}}
    choice = {"index": index, **content, "finish_reason": finish}
    return {"id": "c-1", "object": kind, "model": "engine-model", "choices": [choice]}


def _fed(pump: Pump, *events: bytes) -> list[dict[str, Any]]:
    for event in events:
        pump.feed(event, 1.0)
    return [json.loads(data_of(event)) for event in EventSplitter().feed(pump.cut_short())]


def _events(*chunks: dict[str, Any]) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]


@pytest.mark.parametrize("kind", ["chat.completion.chunk", "text_completion"])
def test_every_choice_that_has_not_ended_gets_a_finish_reason(kind: str) -> None:
    meter = Meter(3, 7)
    pump = StreamPump("asked", meter, usage_wanted=False)
    begun = [_chunk(0, "a", kind=kind), _chunk(1, "b", "stop", kind=kind), _chunk(2, "c", kind=kind)]
    (last,) = _fed(pump, *_events(*begun))
    assert (last["id"], last["model"], last["object"]) == ("c-1", "asked", kind)
    empty: dict[str, object] = {"text": ""} if kind == "text_completion" else {"delta": {}}
    assert last["choices"] == [{"index": index, **empty, "finish_reason": "length"} for index in (0, 2)]


def test_usage_comes_with_it_where_it_was_asked_for() -> None:
    pump = StreamPump("asked", Meter(1, 7), usage_wanted=True)
    last, usage = _fed(pump, *_events(_chunk(0, "four tokens, more or less")))
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 7
    assert usage["usage"]["completion_tokens"] > 0


def test_a_message_ends_its_block_and_says_why_it_stopped() -> None:
    events = message_stream("one", "two")
    pump = MessagesPump("asked", Meter(1, 7))
    begun = events[: next(at for at, event in enumerate(events) if b"content_block_delta" in event) + 1]
    stop, delta = _fed(pump, *begun)
    assert stop == {"type": "content_block_stop", "index": 0}
    assert (delta["type"], delta["delta"]["stop_reason"]) == ("message_delta", "max_tokens")
    assert delta["usage"]["output_tokens"] > 0


def test_a_response_becomes_incomplete() -> None:
    events = response_stream("one", "two")
    pump = ResponsesPump("asked", Meter(1, 7))
    begun = events[: next(at for at, event in enumerate(events) if b".delta" in event) + 1]
    (last,) = _fed(pump, *begun)
    assert last["type"] == "response.incomplete"
    response = last["response"]
    assert (response["status"], response["model"]) == ("incomplete", "asked")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["usage"]["input_tokens"] == 7


async def test_the_engine_is_stopped_as_soon_as_the_allowance_is_used_up() -> None:
    never = asyncio.Event()
    response = stream_response(_chunk(0, "aaaa"), _chunk(0, "bbbb"), _chunk(0, "cccc"), never)
    client, progress = Client(), Progress(Meter(1, 7))
    progress.meter.output_allowance = 2
    engine = Engine(response)
    with pytest.raises(BudgetExceeded):
        await Relay().run(call(stream=True), attempts(engine), client, progress)
    assert response.aborted
    assert progress.meter.completion_tokens == 2
    said = client.body
    assert b"bbbb" in said
    assert b"cccc" not in said
    assert b'"finish_reason":"length"' in said


async def test_what_an_engine_is_ahead_by_is_neither_passed_on_nor_counted() -> None:
    """A client that reads slowly would get, in one piece, all that has gathered meanwhile."""
    gathered = b"".join(_events(*[_chunk(0, "aaaa")] * 500, _chunk(0, "", "stop")))
    client, progress = Client(), Progress(Meter(1, 7))
    progress.meter.output_allowance = 20
    with pytest.raises(BudgetExceeded):
        await Relay().run(call(stream=True), attempts(Engine(stream_response(gathered))), client, progress)
    assert progress.meter.completion_tokens == 21
    assert client.body.count(b"aaaa") == 21


async def test_an_answer_that_ends_with_its_last_token_is_not_stopped() -> None:
    response = stream_response(_chunk(0, "aaaa"), _chunk(0, "bbbb", "stop"), "[DONE]")
    client, progress = Client(), Progress(Meter(1, 7))
    progress.meter.output_allowance = 2
    await Relay().run(call(stream=True), attempts(Engine(response)), client, progress)
    assert b"length" not in client.body
