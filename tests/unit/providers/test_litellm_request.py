"""What litellm is called with: OpenAI's fields and nothing that it would take for a setting of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.providers.litellm_request import TranslatedCall, translate

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "openai/gpt", "messages": [{"role": "user", "content": "hello"}]}
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: HELLO,
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/v1/embeddings": {"model": "m", "input": ["a"]},
}


def translated(path: str = CHAT, **fields: Any) -> TranslatedCall:
    return translate(path, json.dumps(REQUESTS[path] | fields).encode())


def test_a_whole_answer() -> None:
    call = translated(temperature=0.5, tools=[{"type": "function"}], seed=None, metadata={"trace": "1"})
    assert call.function == "acompletion"
    assert call.arguments == HELLO | {"temperature": 0.5, "tools": [{"type": "function"}]}
    assert (call.streamed, call.whole) == (False, True)


def test_a_stream_asks_for_usage_and_for_nothing_else_of_the_clients_options() -> None:
    call = translated(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert call.arguments == HELLO | {"stream": True, "stream_options": {"include_usage": True}}
    assert (call.streamed, call.whole) == (True, False)


@pytest.mark.parametrize(("path", "fields"), [(CHAT, {"n": 2}), ("/v1/completions", {}), ("/v1/completions", {"n": 3})])
def test_streams_that_litellm_cannot_be_trusted_with_are_asked_for_whole(path: str, fields: dict[str, Any]) -> None:
    call = translated(path, stream=True, stream_options={"include_usage": True}, **fields)
    assert (call.streamed, call.whole) == (True, True)
    assert not {"stream", "stream_options"} & call.arguments.keys()


@pytest.mark.parametrize(
    ("path", "function"),
    [(CHAT, "acompletion"), ("/v1/completions", "atext_completion"), ("/v1/embeddings", "aembedding")],
)
def test_every_endpoint_has_its_function(path: str, function: str) -> None:
    assert translated(path).function == function


@pytest.mark.parametrize(
    "name",
    [
        *("api_base", "base_url", "api_key", "custom_llm_provider", "extra_headers", "extra_body", "timeout"),
        *("mock_response", "fallbacks", "callbacks", "cache", "drop_params", "vertex_credentials", "aws_profile_name"),
        *("priority", "input"),
    ],
)
def test_settings_of_litellm_and_foreign_fields_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translated(**{name: "x"})
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": ["hello"]}, "messages"),
        (CHAT, {"messages": "hello"}, "messages"),
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompt"),
    ],
)
def test_shapes_that_litellm_stumbles_over_are_refused(path: str, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translated(path, **fields)
    assert refused.value.param == param


def test_other_paths_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        translate("/health", b"")
