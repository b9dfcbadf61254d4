"""Whole answers and endings of `/v1/messages` and `/v1/responses`, as the relay handles them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.domain.call import Endpoint
from gateway.domain.usage import Coverage, Status, TokenUsage
from gateway.errors import GatewayError, UpstreamBusy, UpstreamFailed, UpstreamRefused
from gateway.relay.meter import Meter
from gateway.relay.relay import Progress, Relay
from gateway.relay.wire import estimated_tokens
from tests.unit.relay.events import message_stream, response_stream, typed
from tests.unit.relay.scripted import Client, Engine, Response, attempts, call, json_response, stream_response

MESSAGES, COUNT, RESPONSES = Endpoint.MESSAGES, Endpoint.COUNT_TOKENS, Endpoint.RESPONSES
MESSAGE = {
    "type": "message",
    "model": "engine-model",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 4, "cache_read_input_tokens": 16, "output_tokens": 2},
}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "model": "engine-model",
    "error": None,
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 16},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
    },
}


async def relayed(endpoint: Endpoint, response: Response, *, stream: bool = False) -> tuple[Client, TokenUsage, Engine]:
    """Run a call to its end."""
    client, progress, engine = Client(), Progress(Meter(1, 99)), Engine(response)
    await Relay().run(call(endpoint=endpoint, stream=stream), attempts(engine), client, progress)
    assert client.ended
    usage = progress.meter.usage(Status.OK, output_estimate_max=99, output_per_s=1.0, streamed=stream, ended_s=0.0)
    return client, usage, engine


@pytest.mark.parametrize(
    ("endpoint", "path", "answer", "usage"),
    [
        (MESSAGES, "/v1/messages", MESSAGE, TokenUsage(prompt=20, cached=16, completion=2)),
        (RESPONSES, "/v1/responses", RESPONSE, TokenUsage(prompt=20, cached=16, completion=2, reasoning=1)),
        (COUNT, "/v1/messages/count_tokens", {"input_tokens": 12}, TokenUsage()),
    ],
)
async def test_a_whole_answer_passes_and_its_usage_is_the_engines(
    endpoint: Endpoint, path: str, answer: dict[str, Any], usage: TokenUsage
) -> None:
    client, counted, engine = await relayed(endpoint, json_response(answer))
    assert json.loads(client.body) == answer | ({"model": "alias"} if "model" in answer else {})
    assert counted == usage
    assert [request.path for request in engine.requests] == [path]


CALL = {"name": "read", "id": "x" * 99}


@pytest.mark.parametrize(
    ("endpoint", "said", "said_bytes"),
    [
        (MESSAGES, [{"type": "text", "text": "t" * 80}], 80),
        (MESSAGES, [{"type": "thinking", "thinking": "t" * 80, "signature": "s" * 99}], 80),
        (MESSAGES, [{"type": "text", "text": "t" * 80}, {"type": "tool_use", "input": {"a": 1}, **CALL}], 91),
        (MESSAGES, [{"type": "text", "text": 5}], 29),
        (RESPONSES, [{"type": "message", "content": [{"type": "output_text", "text": "t" * 80}], "id": "x" * 99}], 80),
        (RESPONSES, [{"type": "function_call", "arguments": "a" * 80, **CALL}], 84),
        (RESPONSES, [{"type": "reasoning", "summary": [], "content": None}, {"content": [{"text": "t" * 80}]}], 80),
        (RESPONSES, [{"type": "message", "content": 5}], 35),
    ],
)
async def test_without_usage_what_was_said_is_counted_without_what_it_is_wrapped_in(
    endpoint: Endpoint, said: list[Any], said_bytes: int
) -> None:
    """Nothing of an unforeseen shape is free: it counts as it came."""
    answer = {**MESSAGE, "content": said} if endpoint is MESSAGES else {**RESPONSE, "output": said}
    _, counted, _ = await relayed(endpoint, json_response(answer | {"usage": None}))
    assert (counted.coverage, counted.prompt) == (Coverage.ESTIMATED, 99)
    assert counted.completion == estimated_tokens(said_bytes)


@pytest.mark.parametrize(
    ("endpoint", "answer", "error"),
    [
        (MESSAGES, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, UpstreamBusy),
        (MESSAGES, {"type": "error", "error": {"type": "api_error", "message": "x"}}, UpstreamFailed),
        (MESSAGES, {"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, UpstreamRefused),
        (COUNT, {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, UpstreamBusy),
        (RESPONSES, RESPONSE | {"status": "failed", "error": {"code": "server_error"}}, UpstreamFailed),
        (RESPONSES, {"error": {"type": "invalid_request_error", "message": "x"}}, UpstreamRefused),
    ],
)
async def test_an_error_that_came_with_status_200_is_one(
    endpoint: Endpoint, answer: dict[str, Any], error: type[GatewayError]
) -> None:
    with pytest.raises(error):
        await relayed(endpoint, json_response(answer))


@pytest.mark.parametrize("last", ["message_stop", "nothing"])
async def test_a_finished_message_ends_properly(last: str) -> None:
    events = message_stream("hi")
    client, usage, _ = await relayed(
        MESSAGES, stream_response(*(events if last == "message_stop" else events[:-1])), stream=True
    )
    assert client.body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert client.body.count(b"message_stop") == 2
    assert usage == TokenUsage(prompt=30, completion=2)


async def test_a_prompt_that_a_failed_engine_counted_is_not_billed_for_another() -> None:
    first = Engine(stream_response(message_stream(stop_reason=None)[0], UpstreamFailed("broken off")))
    ended = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    silent = [message_stream("hi", stop_reason=None)[-1], typed(ended), typed({"type": "message_stop"})]
    client, progress = Client(), Progress(Meter(1, 99))
    engines = attempts(first, Engine(stream_response(*silent)))
    await Relay().run(call(endpoint=MESSAGES, stream=True), engines, client, progress)
    usage = progress.meter.usage(Status.OK, output_estimate_max=99, output_per_s=1.0, streamed=True, ended_s=0.0)
    assert (client.ended, progress.attempts) == (True, 2)
    assert usage == TokenUsage(prompt=99, completion=1, coverage=Coverage.ESTIMATED), "the first one said 30"


async def test_a_finished_response_ends_with_the_response() -> None:
    client, usage, _ = await relayed(RESPONSES, stream_response(*response_stream("hi")), stream=True)
    last = client.body.split(b"\n\n")[-2]
    assert last.startswith(b"event: response.completed\n")
    assert b"[DONE]" not in client.body
    assert usage == TokenUsage(prompt=30, cached=16, completion=2, reasoning=1)


@pytest.mark.parametrize(
    ("endpoint", "events"),
    [
        (MESSAGES, message_stream("hi", stop_reason=None)),
        (RESPONSES, response_stream("hi", end=None)),
        (MESSAGES, [*message_stream("hi", stop_reason=None), typed({"type": "message_stop"})]),
    ],
)
async def test_a_stream_that_was_cut_never_ends_properly(endpoint: Endpoint, events: list[bytes]) -> None:
    with pytest.raises(UpstreamFailed, match="without finishing"):
        await relayed(endpoint, stream_response(*events), stream=True)
