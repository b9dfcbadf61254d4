"""The official OpenAI SDK through the gateway: everything that a program built on it does when all is well."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import openai
import pytest
from pydantic import BaseModel

from tests.contract.conftest import ANSWER_TOKENS, sdk
from tests.support.ledger import closed_event, closed_events

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam

    from tests.support.stack import Stack

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
LIST_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "Lists a folder.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
ORDER: list[ChatCompletionMessageParam] = [{"role": "user", "content": 'call list_files {"path": "src/ä"}'}]
STREAMS_AT_ONCE = 8


def content_of(chunks: list[ChatCompletionChunk]) -> str:
    """Return the text that the chunks add up to."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_models_are_those_that_the_key_may_use(stack: Stack, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["coder", "hidden"]
    with sdk(stack, stack.tenant(models=["coder"]).key) as narrow:
        assert [model.id for model in narrow.models.list()] == ["coder"]
        assert narrow.models.retrieve("coder").object == "model"


def test_a_model_is_found_by_its_alias_and_says_its_size(client: openai.OpenAI) -> None:
    model = client.models.retrieve("default")
    assert (model.id, model.owned_by) == ("default", "penstock")
    assert model.model_extra is not None
    assert (model.model_extra["context_length"], model.model_extra["max_output_tokens"]) == (4096, 1024)


@pytest.mark.parametrize("asked", ["coder", "default"])
def test_a_whole_answer_bears_the_name_that_was_asked_for(stack: Stack, client: openai.OpenAI, asked: str) -> None:
    answer = client.chat.completions.create(model=asked, messages=HELLO)
    assert (answer.model, answer.choices[0].finish_reason) == (asked, "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == ANSWER_TOKENS
    assert answer._request_id is not None
    row = closed_event(stack.dsn, answer._request_id)
    assert (row["model"], row["prompt_tokens"]) == ("coder", answer.usage.prompt_tokens)


def test_a_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="coder", messages=HELLO, seed=5)
    chunks = list(client.chat.completions.create(model="coder", messages=HELLO, seed=5, stream=True))
    assert content_of(chunks) == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {"coder"}
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * ANSWER_TOKENS + ["stop"]
    assert all(chunk.usage is None for chunk in chunks), "nobody asked"


def test_usage_comes_in_a_last_chunk_for_who_asks(stack: Stack, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="coder", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert usage is not None
    row = closed_event(stack.dsn, stream.response.headers["x-request-id"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert (row["status"], row["coverage"]) == ("ok", "exact")


def test_the_event_helper_gathers_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="coder", messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[-1] == "content.done"
    assert final.choices[0].finish_reason == "stop"


def test_a_tool_call_is_streamed_and_its_result_answered(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="coder", messages=ORDER, tools=[LIST_TOOL], stream=True)
    choices = [chunk.choices[0] for chunk in stream]
    deltas = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert choices[-1].finish_reason == "tool_calls"
    assert deltas[0].function is not None
    assert (deltas[0].index, deltas[0].function.name) == (0, "list_files")
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    assert json.loads(arguments) == {"path": "src/ä"}
    assert len(deltas) > 2, "arguments come in pieces"

    call: Any = {"id": deltas[0].id, "type": "function", "function": {"name": "list_files", "arguments": arguments}}
    made: list[Any] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": deltas[0].id, "content": "a b"},
    ]
    ended = client.chat.completions.create(model="coder", messages=[*ORDER, *made], tools=[LIST_TOOL])
    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].message.content


def test_a_whole_tool_call_is_parsed(client: openai.OpenAI) -> None:
    class ListFiles(BaseModel):
        path: str

    tool = openai.pydantic_function_tool(ListFiles, name="list_files")
    answer = client.chat.completions.parse(model="coder", messages=ORDER, tools=[tool])
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == ListFiles(path="src/ä")


def test_fields_that_the_gateway_does_not_know_reach_the_engine(stack: Stack, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="coder", messages=HELLO, temperature=0.25, extra_body={"chat_template_kwargs": {"thinking": False}}
    )
    body = stack.engine.state()["requests"][-1]["body"]
    assert (body["model"], body["temperature"]) == ("sim", 0.25)
    assert body["chat_template_kwargs"] == {"thinking": False}


def test_text_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="coder", prompt=["abcd", "efghi"], n=2, seed=1, max_tokens=3)
    assert [(choice.index, choice.finish_reason) for choice in whole.choices] == [(at, "length") for at in range(4)]
    assert (whole.model, whole.usage and whole.usage.completion_tokens) == ("coder", 12)
    stream = client.completions.create(model="coder", prompt="abcd", seed=1, max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_embeddings_in_either_format(stack: Stack, client: openai.OpenAI) -> None:
    packed = client.embeddings.with_raw_response.create(model="coder", input=["one text", "another"])
    plain = client.embeddings.create(model="coder", input="one text", encoding_format="float")
    vectors = packed.parse().data
    assert vectors[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    row = closed_event(stack.dsn, packed.headers["x-request-id"])
    assert (row["endpoint"], row["prompt_tokens"], row["completion_tokens"]) == ("embeddings", 4, 0)


def test_headers_tell_the_request_and_the_tightest_limit(stack: Stack) -> None:
    tenant = stack.tenant(requests_per_minute=60, tokens_per_minute=100_000)
    with sdk(stack, tenant.key) as client:
        answer = client.chat.completions.with_raw_response.create(model="coder", messages=HELLO)
    headers = answer.headers
    assert UUID(headers["x-request-id"]).version == 7
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("60", "59")
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert answer.parse().choices[0].message.content


def test_a_streamed_answer_can_be_read_line_by_line(client: openai.OpenAI) -> None:
    create = client.chat.completions.with_streaming_response.create
    with create(model="coder", messages=HELLO, stream=True) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"


async def test_the_asynchronous_client_streams_in_parallel(stack: Stack) -> None:
    tenant = stack.tenant()

    async def one(client: openai.AsyncOpenAI, seed: int) -> str:
        stream = await client.chat.completions.create(model="coder", messages=HELLO, seed=seed, stream=True)
        return content_of([chunk async for chunk in stream])

    async with openai.AsyncOpenAI(base_url=stack.gateway.base_url, api_key=tenant.key, max_retries=0) as client:
        texts = await asyncio.gather(*(one(client, seed) for seed in range(STREAMS_AT_ONCE)))
        again = await client.chat.completions.create(model="coder", messages=HELLO, seed=3)
    assert len(set(texts)) == STREAMS_AT_ONCE
    assert again.choices[0].message.content == texts[3]
    assert {row["status"] for row in closed_events(stack.dsn, tenant)} == {"ok"}
