"""Pools of kind litellm in front of a provider that speaks Anthropic's dialect: the translation, there and back."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.anthropic import CACHE_READ_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, Script, answer, refusal, text
from tests.support.http import DONE
from tests.support.litellm_stand import ASK_FOR_USAGE, CHAT, HELLO, Stand, litellm_stand, said, tokens
from tests.support.venvs import INSTALL_S_MAX
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

pytestmark = pytest.mark.timeout(INSTALL_S_MAX + 120)

ASK: dict[str, Any] = {"model": "claude", "messages": HELLO}
LS = {"name": "ls", "description": "Lists a folder.", "parameters": {"type": "object", "properties": {}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "/etc"}}
COUNTED = (INPUT_TOKENS + CACHE_READ_TOKENS, CACHE_READ_TOKENS, OUTPUT_TOKENS, "exact")
WORDS = text("one two three four")

each_way = pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def running(
    servers: ServerAddresses, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with litellm_stand(servers, databases, tmp_path_factory.mktemp("litellm")) as started:
        yield started


@pytest.fixture
def stand(running: Stand) -> Stand:
    running.reset()
    return running


def test_a_whole_answer_and_what_the_provider_is_asked(stand: Stand) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    found = stand.http.post(CHAT, {**ASK, "messages": messages, "max_tokens": 50})
    choice = found.document["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello there", "stop")
    assert found.document["model"] == "claude"
    assert tokens(stand.billed(found.request_id)) == COUNTED
    asked = stand.anthropic.requests[-1]
    assert (asked.path, asked.headers["x-api-key"]) == ("/v1/messages", "sk-provider")
    assert (asked.document["model"], asked.document["max_tokens"]) == ("claude-sim", 50)
    assert asked.document["system"] == [{"type": "text", "text": "Be brief."}]


def test_a_stream(stand: Stand) -> None:
    stand.anthropic.answer = WORDS
    with stand.http.stream(CHAT, {**ASK, **ASK_FOR_USAGE}) as stream:
        data = list(stream.data())
        request_id = stream.request_id
        assert not stream.cut
    assert data[-1] == DONE
    chunks = [json.loads(event) for event in data[:-1]]
    assert said(chunks) == "one two three four "
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, None, None, "stop"]
    usage = chunks[-1]["usage"]
    assert chunks[-1]["choices"] == []
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (COUNTED[0], OUTPUT_TOKENS)
    assert usage["prompt_tokens_details"]["cached_tokens"] == CACHE_READ_TOKENS
    assert tokens(stand.billed(request_id)) == COUNTED


def test_a_round_of_tools(stand: Stand) -> None:
    stand.anthropic.answer = answer({"type": "text", "text": "let me see"}, CALL, stop_reason="tool_use")
    asked = {**ASK, "tools": [{"type": "function", "function": LS}]}
    choice = stand.http.post(CHAT, asked).document["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "let me see")
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("toolu_1", "ls")
    assert stand.anthropic.requests[-1].document["tools"][0]["name"] == "ls"
    with stand.http.stream(CHAT, {**asked, "stream": True}) as stream:
        chunks = stream.chunks()
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"path": "/etc"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    stand.anthropic.answer = text("done")
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "hosts"}
    stand.http.post(CHAT, {**asked, "messages": [*HELLO, choice["message"], result]})
    *_, last = stand.anthropic.requests[-1].document["messages"]
    assert (last["role"], last["content"][0]["tool_use_id"]) == ("user", "toolu_1")


@each_way
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (refusal(400, "invalid_request_error", "messages.0: no such role"), 400, "upstream_refused"),
        (refusal(400, "invalid_request_error", "prompt is too long: 9 > 8"), 400, "context_length_exceeded"),
        (refusal(413, "request_too_large", "too large"), 413, "upstream_refused"),
        (refusal(401, "authentication_error", "invalid x-api-key"), 502, "upstream_error"),
        (refusal(429, "rate_limit_error", "slow down", retry_after="7"), 429, "engine_busy"),
        (refusal(529, "overloaded_error", "Overloaded"), 429, "engine_busy"),
        (refusal(500, "api_error", "oops"), 502, "upstream_error"),
    ],
    ids=["bad", "long", "large", "key", "limit", "overloaded", "fault"],
)
def test_a_refusal(stand: Stand, script: Script, status: int, code: str, options: dict[str, Any]) -> None:
    stand.anthropic.answer = script
    before = len(stand.anthropic.requests)
    found = stand.http.post(CHAT, {**ASK, **options})
    assert (found.status, found.error["code"]) == (status, code)
    assert found.headers.get("retry-after") == script.headers.get("retry_after")
    if script.status in (400, 413):
        assert found.error["message"] == script.document["error"]["message"]
    assert len(stand.anthropic.requests) == before + 1


@pytest.mark.parametrize(
    "events",
    [
        WORDS.events[:5],
        WORDS.events[:-2],
        (*WORDS.events[:5], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ],
    ids=["cut in a word", "cut before the end", "an error event"],
)
def test_a_stream_that_is_cut_never_ends_well(stand: Stand, events: tuple[dict[str, Any], ...]) -> None:
    """litellm gives a stream without an end one of its own: `finish_reason: stop`."""
    stand.anthropic.answer = dataclasses.replace(WORDS, events=events)
    with stand.http.stream(CHAT, {**ASK, "stream": True}) as stream:
        data = list(stream.data())
        request_id = stream.request_id
        assert stream.cut
    assert DONE not in data
    assert "error" in json.loads(data[-1])
    assert "stop" not in [json.loads(event)["choices"][0]["finish_reason"] for event in data[:-1]]
    line = stand.billed(request_id)
    assert (line["status"], line["coverage"]) == ("upstream_error", "estimated")
    assert line["completion_tokens"] > 0


def test_a_stream_without_any_content_is_no_answer(stand: Stand) -> None:
    stand.anthropic.answer = dataclasses.replace(WORDS, events=())
    found = stand.http.post(CHAT, {**ASK, "stream": True})
    assert (found.status, found.error["code"]) == (502, "upstream_error")


def test_a_hang_up_reaches_the_provider(stand: Stand) -> None:
    stand.anthropic.answer = dataclasses.replace(WORDS, events=WORDS.events[:4], ending="hold")
    with stand.http.stream(CHAT, {**ASK, "stream": True}) as stream:
        assert next(stream.data())
        request_id = stream.request_id
    wait_for(stand.anthropic.hung_up.is_set, "the provider is hung up on", timeout_s=1.0)
    line = stand.billed(request_id)
    assert (line["status"], line["coverage"]) == ("client_closed", "estimated")


def test_what_a_prompt_points_to_is_not_fetched(stand: Stand) -> None:
    before = len(stand.anthropic.requests)
    image = {"type": "image_url", "image_url": {"url": f"{stand.anthropic.url}/secret.png"}}
    found = stand.http.post(CHAT, {**ASK, "messages": [{"role": "user", "content": [image]}]})
    assert found.status == 400
    assert "data:" in found.error["message"]
    assert len(stand.anthropic.requests) == before


def test_what_the_provider_does_not_have_is_said_and_not_dropped(stand: Stand) -> None:
    found = stand.http.post(CHAT, {**ASK, "logit_bias": {"1": 5}})
    assert (found.status, found.error["code"]) == (400, "unsupported_parameter")
    assert found.error["message"].startswith("anthropic does not support parameters: ['logit_bias']")
    assert "drop_params" not in found.error["message"]
