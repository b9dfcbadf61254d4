"""One call, some engines, one client: who is asked, who is told what, and how an answer may end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.domain.attempt import AttemptOutcome
from gateway.domain.config import EngineKind
from gateway.domain.usage import Status
from gateway.errors import (
    GatewayError,
    NoEngine,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamStale,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.relay import relay as relay_module
from gateway.relay.meter import Meter
from gateway.relay.relay import Progress, Relay
from gateway.relay.upstream_errors import BODY_BYTES_MAX
from tests.unit.relay.scripted import (
    JSON_HEADERS,
    Client,
    Engine,
    Response,
    attempts,
    call,
    json_response,
    stream_response,
)

OK, FAILED, BUSY = AttemptOutcome.OK, AttemptOutcome.FAILED, AttemptOutcome.BUSY
REFUSED, ABANDONED, STALE = AttemptOutcome.REFUSED, AttemptOutcome.ABANDONED, AttemptOutcome.STALE
USAGE = {"prompt_tokens": 7, "completion_tokens": 2}
ANSWER = {"id": "1", "model": "engine-model", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
PROMPT_ESTIMATE = 70
DONE = b"data: [DONE]\n\n"
CUT = UpstreamFailed("the engine broke the connection off")


def chunk(content: str = "hi", finish_reason: str | None = None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish_reason}
    return {"model": "engine-model", "choices": [choice]}


async def relayed(*engines: Engine, **options: Any) -> tuple[Client, Progress]:
    """Run a call to its end."""
    client, progress = Client(), Progress(Meter(options.get("choices", 1), PROMPT_ESTIMATE))
    await Relay().run(call(**options), attempts(*engines), client, progress)
    assert client.ended
    return client, progress


async def failing(*engines: Engine, **options: Any) -> tuple[GatewayError, Client, Progress]:
    """Run a call that fails; return how."""
    client, progress = Client(), Progress(Meter(options.get("choices", 1)))
    with pytest.raises(GatewayError) as failure:
        await Relay().run(call(**options), attempts(*engines), client, progress)
    assert not client.ended, "a failure never looks like an end"
    return failure.value, client, progress


async def test_an_answer_is_passed_with_the_name_that_was_asked_for() -> None:
    engine = Engine(json_response(ANSWER | {"usage": USAGE, "vendor": {"model": "x"}}))
    client, progress = await relayed(engine, temperature=msgspec.Raw(b"1.50"))
    assert json.loads(client.body) == ANSWER | {"model": "alias", "usage": USAGE, "vendor": {"model": "x"}}
    assert engine.outcomes == [(OK, None)]
    (request,) = engine.requests
    assert (request.method, request.path, request.headers) == (b"POST", "/v1/chat/completions", b"x-engine: 1\r\n")
    assert (request.first_byte_s, request.idle_s) == (7, 8)
    assert request.body == b'{"temperature":1.50,"model":"engine-model"}'
    assert (progress.attempts, progress.pool, progress.engine, progress.served_model) == (
        1,
        "p",
        "http://engine",
        "asked",
    )
    assert progress.meter.sent_s is not None
    assert progress.meter.completion_tokens == 1


async def test_an_answer_that_names_the_model_right_is_passed_byte_for_byte() -> None:
    body = b'{ "model" :"alias", "choices":[] }'
    client, _ = await relayed(Engine(Response(200, JSON_HEADERS, [body])))
    assert client.body == body


async def test_fields_that_only_the_gateway_may_set_do_not_reach_the_engine() -> None:
    engine = Engine(json_response(ANSWER))
    await relayed(engine, priority=msgspec.Raw(b"1"), cache_salt=msgspec.Raw(b'"x"'), seed=msgspec.Raw(b"1"))
    assert engine.sent == {"seed": 1, "model": "engine-model"}
    other = Engine(json_response(ANSWER), engine_kind=EngineKind.OPENAI)
    await relayed(other, priority=msgspec.Raw(b"1"))
    assert other.sent == {"priority": 1, "model": "engine-model"}


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (CUT, (FAILED, None)),
        (UpstreamTimeout("late"), (FAILED, None)),
        (UpstreamStale("it had ended"), (STALE, None)),
        (UpstreamUnreachable("nobody there"), (FAILED, None)),
        (json_response({"error": "x"}, 500), (FAILED, None)),
        (json_response({"error": "x"}, 429, retry_after="3"), (BUSY, 3.0)),
        (json_response([1]), (FAILED, None)),
        (Response(200, JSON_HEADERS, [b'{"choices":', CUT]), (FAILED, None)),
        (Response(500, JSON_HEADERS, [CUT]), (FAILED, None)),
        (json_response({"error": {"message": "boom", "code": 500}}), (FAILED, None)),
    ],
    ids=["cut", "late", "stale", "away", "500", "429", "no object", "half", "half an error", "error with 200"],
)
async def test_before_the_first_byte_another_engine_is_tried(
    response: Response | GatewayError, outcome: tuple[AttemptOutcome, float | None]
) -> None:
    first, second = Engine(response), Engine(json_response(ANSWER), engine="http://second")
    client, progress = await relayed(first, second)
    assert json.loads(client.body)["model"] == "alias"
    assert (first.outcomes, second.outcomes) == ([outcome], [(OK, None)])
    assert (progress.attempts, progress.engine) == (2, "http://second")
    if isinstance(response, Response):
        assert response.aborted


async def test_what_a_failed_attempt_counted_is_forgotten() -> None:
    """Nothing of it reached the client, and the engine that served says what was used."""
    counted = {"choices": [], "usage": {"prompt_tokens": 10**6}}
    _, progress = await relayed(
        Engine(stream_response(counted, CUT)),
        Engine(stream_response(chunk(finish_reason="stop"), "[DONE]")),
        stream=True,
        usage_wanted=False,
    )
    billed = progress.meter.usage(Status.OK, output_estimate_max=9, output_per_s=1.0, streamed=True, ended_s=0.0)
    assert (billed.prompt, billed.completion) == (PROMPT_ESTIMATE, 1)


@pytest.mark.parametrize(
    "response",
    [
        json_response({"error": {"message": "n must be 1", "code": 400}}, 400),
        json_response({"error": {"message": "n must be 1", "code": 400}}),
    ],
    ids=["status", "error with 200"],
)
async def test_a_refusal_is_told_at_once_and_nobody_else_is_asked(response: Response) -> None:
    first, second = Engine(response), Engine(json_response(ANSWER))
    error, _, _ = await failing(first, second)
    assert isinstance(error, UpstreamRefused)
    assert error.message == "n must be 1"
    assert first.outcomes == [(REFUSED, None)]
    assert second.requests == []


async def test_a_refusal_with_a_long_body_is_still_a_refusal() -> None:
    """Some engines quote the whole prompt in it: a failure of the engine it is not."""
    pieces = [b'{"error":{"message":"', *[b"x" * 10_000] * 100, b'"}}']
    response = Response(400, JSON_HEADERS, list(pieces))
    engine = Engine(response)
    error, _, _ = await failing(engine)
    assert isinstance(error, UpstreamRefused)
    assert error.status == 400
    assert engine.outcomes == [(REFUSED, None)]
    assert sum(len(piece) for piece in response.pieces if isinstance(piece, bytes)) > 900_000 - BODY_BYTES_MAX
    assert response.aborted


async def test_the_last_failure_is_told_when_there_is_nobody_left() -> None:
    busy = json_response({}, 429, retry_after="3")
    error, _, _ = await failing(Engine(CUT), Engine(busy))
    assert isinstance(error, UpstreamBusy)
    assert error.retry_after_s == 3.0
    error, _, _ = await failing(Engine(json_response({}, 503)), Engine(CUT))
    assert error is CUT
    error, _, progress = await failing()
    assert isinstance(error, NoEngine)
    assert progress.attempts == 0


async def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "ANSWER_BYTES_MAX", 1_000)
    error, _, _ = await failing(Engine(Response(200, JSON_HEADERS, [b"x" * 600, b"x" * 600])))
    assert isinstance(error, UpstreamFailed)
    assert "too large" in error.message


async def test_a_stream_is_passed_as_it_comes_and_ends_properly() -> None:
    response = stream_response(chunk("a"), chunk("b"), chunk("", "stop"), {"choices": [], "usage": USAGE}, "[DONE]")
    engine = Engine(response)
    client, progress = await relayed(engine, stream=True)
    events = client.body.split(b"\n\n")
    assert [json.loads(event[6:]) for event in events[:3]] == [
        each | {"model": "alias"} for each in (chunk("a"), chunk("b"), chunk("", "stop"))
    ]
    assert client.body.endswith(DONE)
    assert client.body.count(DONE) == 1
    assert engine.outcomes == [(OK, None)]
    assert response.left, "to end by itself, so that the connection can be used again and nobody waits for it"
    assert not response.aborted
    assert progress.meter.completion_tokens == 2


@pytest.mark.parametrize(
    ("events", "choices"),
    [
        ([chunk(), chunk("", "stop")], 1),
        ([chunk(), chunk("", "stop"), "[DONE]"], 2),
        ([chunk(), chunk("", "stop", 0), chunk("", "stop", 1)], 2),
        ([chunk("", "stop"), b'data: {"choices":[],"usage":{"prompt_tokens":1}}'], 1),
    ],
    ids=["no [DONE]", "fewer choices", "no [DONE], two choices", "no line end"],
)
async def test_a_stream_whose_choices_have_ended_is_ended_properly(events: list[Any], choices: int) -> None:
    client, _ = await relayed(Engine(stream_response(*events)), stream=True, choices=choices)
    assert client.body.endswith(DONE)


@pytest.mark.parametrize(
    "events",
    [
        [chunk()],
        [chunk(), "[DONE]"],
        [chunk(), chunk("", "stop", 0), chunk("b", None, 1)],
        [chunk(), chunk("", "stop", 0), chunk("b", None, 1), "[DONE]"],
        [chunk(), CUT],
        [chunk(), UpstreamTimeout("silent")],
        [chunk(), {"error": {"message": "boom", "code": 500}}],
        [chunk(), "<html>502</html>", "[DONE]"],
        [f"data: {json.dumps(chunk())}\n\n".encode() + DONE],
        [f"data: {json.dumps(chunk())}".encode()],
    ],
    ids=["cut", "done too soon", "half", "half, done", "broken", "silent", "error", "no JSON", "at once", "no end"],
)
async def test_a_stream_that_is_not_finished_is_never_ended_and_nobody_else_is_asked(events: list[Any]) -> None:
    first, second = Engine(stream_response(*events)), Engine(json_response(ANSWER))
    error, client, progress = await failing(first, second, stream=True, choices=2)
    assert isinstance(error, UpstreamFailed | UpstreamTimeout)
    assert b'"content": "hi"' in client.body
    assert DONE not in client.body
    assert b"<html>" not in client.body
    assert (first.outcomes, second.requests) == ([(FAILED, None)], [])
    assert progress.meter.completion_tokens >= 1


@pytest.mark.parametrize(
    "response",
    [
        json_response(ANSWER),
        stream_response(),
        stream_response("[DONE]"),
        stream_response(b": ping\n\n", CUT),
        stream_response('{"half', chunk("", "stop"), "[DONE]"),
    ],
    ids=["no stream", "empty", "nothing but [DONE]", "a comment", "no JSON"],
)
async def test_a_stream_that_never_begins_is_tried_elsewhere(response: Response) -> None:
    good = Engine(stream_response(chunk("", "stop"), "[DONE]"))
    client, progress = await relayed(Engine(response), good, stream=True)
    assert client.body.endswith(DONE)
    assert progress.attempts == 2


async def test_a_stream_that_refuses_in_its_first_event_is_a_refusal() -> None:
    engine = Engine(stream_response({"error": {"message": "too long", "code": 400}}))
    error, client, _ = await failing(engine, Engine(json_response(ANSWER)), stream=True)
    assert isinstance(error, UpstreamRefused)
    assert client.body == b""
    assert engine.outcomes == [(REFUSED, None)]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_says_nothing_about_the_engine(stream: bool) -> None:  # noqa: FBT001 - pytest passes by name
    waits = asyncio.Event()
    response = stream_response(chunk(), waits) if stream else Response(200, JSON_HEADERS, [b"{", waits])
    engine, client, progress = Engine(response), Client(), Progress(Meter(1))
    running = asyncio.ensure_future(Relay().run(call(stream=stream), attempts(engine), client, progress))
    await response.stuck.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.outcomes == [(ABANDONED, None)]
    assert response.aborted, "the engine is hung up on"
    assert progress.meter.completion_tokens == int(stream)


async def test_an_engine_that_does_not_end_its_response_does_not_hold_the_client() -> None:
    response = stream_response(chunk("", "stop"), "[DONE]", asyncio.Event())
    client, _ = await relayed(Engine(response), stream=True)
    assert client.body.endswith(DONE)
    assert not response.stuck.is_set()
