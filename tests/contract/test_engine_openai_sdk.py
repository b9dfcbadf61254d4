"""The official OpenAI SDK straight against the simulated engine: what a gateway must not change on the way."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.engine import EngineProcess

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
LIST_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "Lists a folder.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("sim", "other-name", max_model_len=4096, output_tokens=12) as running:
        yield running


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def content_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["sim", "other-name"]


def test_a_whole_answer_and_its_usage(engine: EngineProcess, client: openai.OpenAI) -> None:
    before = engine.metrics()
    answer = client.chat.completions.create(model="sim", messages=HELLO)
    after = engine.metrics()
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", "sim", "chatcmpl-")
    assert (answer.choices[0].finish_reason, answer.choices[0].message.role) == ("stop", "assistant")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    counted = {name: after[name] - before[name] for name in after}
    assert counted["vllm:prompt_tokens_total"] == answer.usage.prompt_tokens
    assert counted["vllm:generation_tokens_total"] == 12
    assert counted['vllm:request_success_total{engine="0",finished_reason="stop",model_name="sim"}'] == 1


def test_a_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="sim", messages=HELLO, seed=5)
    chunks = list(client.chat.completions.create(model="sim", messages=HELLO, seed=5, stream=True))
    assert content_of(chunks) == whole.choices[0].message.content
    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 12 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_comes_in_a_last_chunk_without_choices(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="sim", messages=HELLO, stream=True, stream_options=options))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 0


def test_continuous_usage_counts_up_with_every_chunk(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(client.chat.completions.create(model="sim", messages=HELLO, stream=True, stream_options=options))
    assert [chunk.usage.completion_tokens if chunk.usage else None for chunk in chunks] == [*range(13), 12]


def test_a_repeated_prompt_reports_cached_tokens(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "again and again " * 32}]
    answers = [client.chat.completions.create(model="sim", messages=messages) for _ in range(2)]
    usages = [answer.usage.model_dump() if answer.usage else {} for answer in answers]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached == [0, (usages[0]["prompt_tokens"] - 1) // 16 * 16]


def test_several_choices_share_one_prompt(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="sim", messages=HELLO, n=3)
    chunks = list(client.chat.completions.create(model="sim", messages=HELLO, n=3, stream=True))
    texts = [choice.message.content for choice in whole.choices]
    assert [content_of(chunks, index) for index in range(3)] == texts
    assert len(set(texts)) == 3
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 36


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
def test_a_bound_cuts_with_length(client: openai.OpenAI, bound: str) -> None:
    asked: dict[str, Any] = {bound: 4}
    answer = client.chat.completions.create(model="sim", messages=HELLO, **asked)
    assert (answer.choices[0].finish_reason, answer.usage and answer.usage.completion_tokens) == ("length", 4)


def test_a_stop_string_is_not_shown(client: openai.OpenAI) -> None:
    said = {"sim": {"text": "one two three"}}
    answer = client.chat.completions.create(model="sim", messages=HELLO, stop=[" thr"], extra_body=said)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two", "stop")


def test_a_tool_call_is_streamed_and_its_result_answered_with_text(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": 'call list_files {"path": "/tmp/ä"}'}]
    stream = client.chat.completions.create(model="sim", messages=messages, tools=[LIST_TOOL], stream=True)
    chunks = [chunk.choices[0] for chunk in stream]
    deltas = [call for choice in chunks for call in choice.delta.tool_calls or []]
    assert chunks[-1].finish_reason == "tool_calls"
    assert deltas[0].id
    assert deltas[0].function is not None
    assert deltas[0].function.name == "list_files"
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    assert json.loads(arguments) == {"path": "/tmp/ä"}  # noqa: S108 - an argument of a call that nobody runs
    assert len(deltas) > 2, "arguments come in pieces"

    whole = client.chat.completions.create(model="sim", messages=messages, tools=[LIST_TOOL])
    assert whole.choices[0].message.tool_calls
    call: Any = whole.choices[0].message.tool_calls[0]
    assert call.function.arguments == arguments
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (None, "tool_calls")

    made: Any = [whole.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "a b"}]
    ended = client.chat.completions.create(model="sim", messages=[*messages, *made], tools=[LIST_TOOL])
    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].message.content


def test_reasoning_comes_before_the_answer(client: openai.OpenAI) -> None:
    extra = {"sim": {"reasoning_tokens": 3}}
    chunks = list(client.chat.completions.create(model="sim", messages=HELLO, stream=True, extra_body=extra))
    reasoning = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks]
    assert [bool(text) for text in reasoning[:5]] == [False, True, True, True, False]
    whole = client.chat.completions.create(model="sim", messages=HELLO, extra_body=extra)
    assert getattr(whole.choices[0].message, "reasoning_content", None) == "".join(text or "" for text in reasoning)


def test_text_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="sim", prompt=["abcd", "efghi"], n=2, seed=1, max_tokens=3)
    assert [(choice.index, choice.finish_reason) for choice in whole.choices] == [(at, "length") for at in range(4)]
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 12)
    stream = client.completions.create(model="sim", prompt="abcd", seed=1, max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    by_ids = client.completions.create(model="sim", prompt=[1, 2, 3, 4, 5])
    assert by_ids.usage is not None
    assert by_ids.usage.prompt_tokens == 5


def test_embeddings_are_unit_vectors_in_either_format(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="sim", input=["one text", "another"])
    plain = client.embeddings.create(model="sim", input="one text", encoding_format="float", dimensions=64)
    assert packed.usage.prompt_tokens == 4
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert sum(value * value for value in packed.data[1].embedding) == pytest.approx(1.0, abs=1e-5)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert refused.value.body == {
        "message": "The model `nobody` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


@pytest.mark.parametrize(("words", "max_tokens"), [(5000, None), (10, 4096)])
def test_what_the_context_cannot_hold_is_refused_with_a_code(
    client: openai.OpenAI, words: int, max_tokens: int | None
) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word" * words}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="sim", messages=messages, max_tokens=max_tokens)
    assert refused.value.code == "context_length_exceeded"


def test_an_error_on_demand_carries_its_wait(client: openai.OpenAI) -> None:
    extra = {"sim": {"status": 429, "retry_after": 7}}
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="sim", messages=HELLO, extra_body=extra)
    assert refused.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="sim", input="a", extra_headers={"x-sim-status": "503"})


@pytest.mark.parametrize("chunks", [0, 1, 4])
def test_a_stream_is_reset_after_as_many_events_as_were_ordered(client: openai.OpenAI, chunks: int) -> None:
    extra = {"sim": {"abort_after_chunks": chunks}}
    stream = client.chat.completions.create(model="sim", messages=HELLO, stream=True, extra_body=extra)
    seen = 0
    with pytest.raises(openai.APIConnectionError):  # noqa: PT012 - the reset comes somewhere in the iteration
        for _ in stream:
            seen += 1
    assert seen == chunks
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="sim", messages=HELLO, extra_body=extra)


def test_usage_can_be_left_out(client: openai.OpenAI) -> None:
    extra = {"sim": {"no_usage": True}}
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = client.chat.completions.create(
        model="sim", messages=HELLO, stream=True, stream_options=options, extra_body=extra
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert client.chat.completions.create(model="sim", messages=HELLO, extra_body=extra).usage is None


def test_the_tokenizer_endpoint_counts_as_the_usage_does(engine: EngineProcess, client: openai.OpenAI) -> None:
    body: Any = {"model": "sim", "messages": HELLO, "tools": [LIST_TOOL]}
    counted: Any = client.post(f"{engine.url}/tokenize", body=body, cast_to=object)
    usage = client.chat.completions.create(**body).usage
    assert usage is not None
    assert counted["count"] == len(counted["tokens"]) == usage.prompt_tokens


def test_the_engine_tells_what_it_received(engine: EngineProcess, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="other-name", messages=HELLO, extra_headers={"x-request-id": "abc"})
    last = engine.state()["requests"][-1]
    assert (last["method"], last["path"], last["outcome"]) == ("POST", "/v1/chat/completions", "finished")
    assert last["headers"]["authorization"] == "Bearer any"
    assert last["body"] == {"model": "other-name", "messages": HELLO}
    assert (last["status"], last["generated_tokens"]) == (200, 12)


def test_control_changes_all_later_requests_until_it_is_taken_back(
    engine: EngineProcess, client: openai.OpenAI
) -> None:
    assert engine.control(output_tokens=3)["output_tokens"] == 3
    short = client.chat.completions.create(model="sim", messages=HELLO).usage
    assert engine.control(output_tokens=None)["output_tokens"] == 12
    assert short is not None
    assert short.completion_tokens == 3
