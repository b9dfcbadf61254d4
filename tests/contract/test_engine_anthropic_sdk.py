"""The official Anthropic SDK straight against the simulated engine: what a gateway must not change on the way."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import MessageParam, ToolParam

from tests.support.engine import EngineProcess

HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]
LIST_TOOL: ToolParam = {
    "name": "list_files",
    "description": "Lists a folder.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("sim", max_model_len=4096, output_tokens=12) as running:
        yield running


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=engine.url, api_key="any", max_retries=0) as made:
        yield made


def message(client: anthropic.Anthropic, messages: Any = HELLO, **fields: Any) -> anthropic.types.Message:
    made: anthropic.types.Message = client.messages.create(
        **{"model": "sim", "max_tokens": 100, "messages": messages, **fields}
    )
    return made


def test_a_whole_message_and_its_usage(engine: EngineProcess, client: anthropic.Anthropic) -> None:
    before = engine.metrics()
    answer = message(client, system="Be brief.")
    after = engine.metrics()
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "sim")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.usage.output_tokens == 12
    assert answer.usage.cache_read_input_tokens == 0
    counted = {name: after[name] - before[name] for name in after}
    assert counted["vllm:prompt_tokens_total"] == answer.usage.input_tokens
    assert counted["vllm:generation_tokens_total"] == 12


def test_a_stream_says_the_same_as_the_whole_message(client: anthropic.Anthropic) -> None:
    whole = message(client)
    with client.messages.stream(model="sim", max_tokens=100, messages=HELLO) as stream:
        streamed = stream.get_final_message()
    assert [block.model_dump(exclude_none=True) for block in streamed.content] == [
        block.model_dump(exclude_none=True) for block in whole.content
    ]
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert (streamed.stop_reason, streamed.model) == (whole.stop_reason, whole.model)


def test_the_events_of_a_stream_come_in_order(client: anthropic.Anthropic) -> None:
    extra = {"sim": {"reasoning_tokens": 2, "output_tokens": 3}}
    events = list(client.messages.create(model="sim", max_tokens=9, messages=HELLO, stream=True, extra_body=extra))
    deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert deltas == ["thinking_delta", "thinking_delta", "signature_delta", "text_delta", "text_delta"]
    assert [event.index for event in events if event.type == "content_block_start"] == [0, 1]


def test_only_the_last_usage_of_a_stream_knows_the_cache(client: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "again and again " * 32}]
    first = message(client, messages)
    events = list(client.messages.create(model="sim", max_tokens=9, messages=messages, stream=True))
    start, end = events[0], events[-2]
    assert start.type == "message_start"
    assert (start.message.usage.input_tokens, start.message.usage.output_tokens) == (first.usage.input_tokens, 0)
    assert start.message.usage.cache_read_input_tokens is None
    assert end.type == "message_delta"
    assert end.usage.input_tokens is not None
    assert end.usage.cache_read_input_tokens == (first.usage.input_tokens - 1) // 16 * 16
    assert end.usage.input_tokens + end.usage.cache_read_input_tokens == first.usage.input_tokens
    assert end.usage.output_tokens == 9
    assert end.delta.stop_reason == "max_tokens"


def test_thinking_is_a_block_of_its_own(client: anthropic.Anthropic) -> None:
    answer = message(client, extra_body={"sim": {"reasoning_tokens": 3}})
    assert [block.type for block in answer.content] == ["thinking", "text"]
    with client.messages.stream(
        model="sim", max_tokens=100, messages=HELLO, extra_body={"sim": {"reasoning_tokens": 3}}
    ) as stream:
        streamed = stream.get_final_message()
    told, whole = streamed.content[0], answer.content[0]
    assert told.type == whole.type == "thinking"
    assert told.thinking == whole.thinking
    assert told.signature


def test_a_stop_sequence_is_named_and_not_shown(client: anthropic.Anthropic) -> None:
    answer = message(client, stop_sequences=[" thr"], extra_body={"sim": {"text": "one two three"}})
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " thr")
    assert [block.text for block in answer.content if block.type == "text"] == ["one two"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_used_and_its_result_ends_the_round(client: anthropic.Anthropic, *, streamed: bool) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": 'call list_files {"path": "/tmp/ä"}'}]
    asked: Any = {"model": "sim", "max_tokens": 100, "tools": [LIST_TOOL]}
    if streamed:
        with client.messages.stream(messages=messages, **asked) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = client.messages.create(messages=messages, **asked)
    assert answer.stop_reason == "tool_use"
    assert [(block.type, block.name, block.input) for block in answer.content] == [
        ("tool_use", "list_files", {"path": "/tmp/ä"})  # noqa: S108 - an argument of a call that nobody runs
    ]
    result = {"type": "tool_result", "tool_use_id": answer.content[0].id, "content": [{"type": "text", "text": "a b"}]}
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]  # type: ignore[list-item, misc] # the SDK's own blocks, which its types do not accept back
    ended = client.messages.create(messages=messages, **asked)
    assert (ended.stop_reason, [block.type for block in ended.content]) == ("end_turn", ["text"])


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"type": "tool", "name": "list_files"}, "tool_use"),
        ({"type": "any"}, "tool_use"),
        ({"type": "auto"}, "end_turn"),
        ({"type": "none"}, "end_turn"),
    ],
)
def test_a_tool_can_be_forced(client: anthropic.Anthropic, choice: Any, reason: str) -> None:
    assert message(client, tools=[LIST_TOOL], tool_choice=choice).stop_reason == reason


def test_tokens_are_counted_as_they_are_used(client: anthropic.Anthropic) -> None:
    conversation: Any = {"system": [{"type": "text", "text": "Be brief."}], "tools": [LIST_TOOL], "messages": HELLO}
    counted = client.messages.count_tokens(model="sim", **conversation).input_tokens
    used = client.messages.create(model="sim", max_tokens=1, **conversation).usage
    assert used.input_tokens + (used.cache_read_input_tokens or 0) == counted


def test_a_billing_header_in_the_system_prompt_is_no_part_of_the_prompt(client: anthropic.Anthropic) -> None:
    def counted(*texts: str) -> int:
        system: Any = [{"type": "text", "text": text} for text in texts]
        return client.messages.count_tokens(model="sim", messages=HELLO, system=system).input_tokens

    assert (
        counted("x-anthropic-billing-header: cch=1234", "Be brief.")
        == counted("Be brief.")
        < counted("1234", "Be brief.")
    )


def test_the_same_conversation_is_the_same_prompt_as_in_a_chat(
    engine: EngineProcess, client: anthropic.Anthropic
) -> None:
    """Cached by the one dialect, found by the other: system prompt, tools, calls, results and images."""
    image = "iVBORw0KGgo="
    schema = LIST_TOOL["input_schema"]
    here: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Look " * 50}, _image_block(image)]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I list."},
                {"type": "tool_use", "id": "t1", "name": "list_files", "input": {"path": "ä"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "a b"},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    call = {"id": "t1", "type": "function", "function": {"name": "list_files", "arguments": json.dumps({"path": "ä"})}}
    address = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}", "detail": "low"}}
    there: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look " * 50}, address]},
        {"role": "assistant", "content": "I list.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "a b"},
        {"role": "user", "content": "So?"},
    ]
    function = {"name": "list_files", "description": "Lists a folder.", "parameters": schema}
    tools: Any = [{"type": "function", "function": function}]
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="any", max_retries=0) as chat:
        used = chat.chat.completions.create(model="sim", messages=there, tools=tools).usage
    answer = message(client, here, system="Be brief.", tools=[LIST_TOOL])
    assert used is not None
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == used.prompt_tokens
    assert answer.usage.cache_read_input_tokens == (used.prompt_tokens - 1) // 16 * 16


def _image_block(data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def test_errors_are_in_the_dialect(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        message(client, model="nobody")
    assert missing.value.body == {
        "type": "error",
        "error": {"type": "NotFoundError", "message": "The model `nobody` does not exist."},
    }
    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        message(client, [{"role": "user", "content": "word" * 5000}])
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.post("/v1/messages", body={"model": "sim", "messages": HELLO}, cast_to=object)
    with pytest.raises(anthropic.RateLimitError) as limited:
        message(client, extra_body={"sim": {"status": 429, "retry_after": 7}})
    assert limited.value.response.headers["retry-after"] == "7"


def test_a_stream_is_reset_where_it_was_ordered(client: anthropic.Anthropic) -> None:
    extra = {"sim": {"abort_after_chunks": 4}}
    stream = client.messages.create(model="sim", max_tokens=50, messages=HELLO, stream=True, extra_body=extra)
    seen: list[str] = []
    with pytest.raises(httpx2.ReadError):  # noqa: PT012 - the reset comes somewhere in the iteration
        for event in stream:
            seen.append(event.type)  # noqa: PERF401 - what came before the error counts
    assert len(seen) == 4
