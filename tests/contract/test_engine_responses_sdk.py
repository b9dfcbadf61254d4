"""The official OpenAI SDK's responses straight against the simulated engine: what a gateway must not change."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response

from tests.support.engine import EngineProcess

LIST_TOOL: FunctionToolParam = {
    "type": "function",
    "name": "list_files",
    "description": "Lists a folder.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    "strict": False,
}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("sim", max_model_len=4096, output_tokens=12) as running:
        yield running


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def response(client: openai.OpenAI, asked: Any = "hello", **fields: Any) -> Response:
    made: Response = client.responses.create(model=fields.pop("model", "sim"), input=asked, **fields)
    return made


def test_a_whole_response_and_its_usage(engine: EngineProcess, client: openai.OpenAI) -> None:
    before = engine.metrics()
    answer = response(client, instructions="Be brief.", metadata={"a": "b"}, tools=[LIST_TOOL])
    after = engine.metrics()
    assert (answer.object, answer.model, answer.status, answer.id[:5]) == ("response", "sim", "completed", "resp_")
    assert (answer.instructions, answer.metadata, len(answer.tools)) == ("Be brief.", {"a": "b"}, 1)
    assert [item.type for item in answer.output] == ["message"]
    assert answer.output_text
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.usage.input_tokens_details.cached_tokens) == (12, 0)
    assert answer.usage.total_tokens == answer.usage.input_tokens + 12
    counted = {name: after[name] - before[name] for name in after}
    assert counted["vllm:prompt_tokens_total"] == answer.usage.input_tokens
    assert counted["vllm:generation_tokens_total"] == 12


def test_a_stream_says_the_same_as_the_whole_response(client: openai.OpenAI) -> None:
    whole = response(client)
    with client.responses.stream(model="sim", input="hello") as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == streamed.output_text == whole.output_text
    assert streamed.usage == whole.usage
    assert streamed.usage is not None


def test_the_events_of_a_stream_come_in_order(client: openai.OpenAI) -> None:
    extra = {"sim": {"reasoning_tokens": 2, "output_tokens": 3}}
    events = list(client.responses.create(model="sim", input="hello", stream=True, extra_body=extra))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.reasoning_text.delta"] * 2,
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 2,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert all(later.sequence_number == earlier.sequence_number + 1 for earlier, later in pairwise(events))
    done = [event.item for event in events if event.type == "response.output_item.done"]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output == done
    assert last.response.usage is not None
    assert last.response.usage.output_tokens_details.reasoning_tokens == 2
    assert last.response.usage.output_tokens == 6


def test_a_repeated_prompt_reports_cached_tokens(client: openai.OpenAI) -> None:
    usages = [response(client, "again and again " * 32).usage for _ in range(2)]
    assert usages[0] is not None
    assert usages[1] is not None
    assert usages[1].input_tokens == usages[0].input_tokens
    assert usages[1].input_tokens_details.cached_tokens == (usages[0].input_tokens - 1) // 16 * 16


def test_a_bound_leaves_the_response_incomplete(client: openai.OpenAI) -> None:
    answer = response(client, max_output_tokens=4)
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    with client.responses.stream(model="sim", input="hello", max_output_tokens=4) as stream:
        streamed = stream.get_final_response()
    assert (streamed.status, streamed.output_text) == ("incomplete", answer.output_text)


def test_a_stop_string_is_not_shown(client: openai.OpenAI) -> None:
    said = {"sim": {"text": "one two three"}, "stop": [" thr"]}
    assert response(client, extra_body=said).output_text == "one two"


def test_reasoning_is_an_item_of_its_own(client: openai.OpenAI) -> None:
    answer = response(client, extra_body={"sim": {"reasoning_tokens": 3}})
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_output_ends_the_round(client: openai.OpenAI, *, streamed: bool) -> None:
    asked: Any = [{"role": "user", "content": 'call list_files {"path": "/tmp/ä"} call list_files {"path": "b"}'}]
    if streamed:
        with client.responses.stream(model="sim", input=asked, tools=[LIST_TOOL]) as stream:
            answer: Any = stream.get_final_response()
    else:
        answer = response(client, asked, tools=[LIST_TOOL])
    calls = answer.output
    assert [(call.type, call.name) for call in calls] == [("function_call", "list_files")] * 2
    assert [json.loads(call.arguments)["path"] for call in calls] == ["/tmp/ä", "b"]  # noqa: S108 - nobody runs it
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "a b"} for call in calls]
    sent_back = [call.model_dump(exclude={"parsed_arguments"}, exclude_none=True) for call in calls]
    ended = response(client, [*asked, *sent_back, *outputs], tools=[LIST_TOOL])
    assert [item.type for item in ended.output] == ["message"]


@pytest.mark.parametrize("choice", [{"type": "function", "name": "list_files"}, "required"])
def test_a_tool_can_be_forced(client: openai.OpenAI, choice: Any) -> None:
    answer = response(client, tools=[LIST_TOOL], tool_choice=choice)
    assert [item.type for item in answer.output] == ["function_call"]


def test_the_same_conversation_is_the_same_prompt_as_in_a_chat(client: openai.OpenAI) -> None:
    """Cached by the one dialect, found by the other: instructions, tools, calls, outputs and images."""
    image = "data:image/png;base64,iVBORw0KGgo="
    here: Any = [
        {"role": "user", "content": [_input("Look " * 50), {"type": "input_image", "image_url": image}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I list."}]},
        {"type": "function_call", "call_id": "t1", "name": "list_files", "arguments": '{"path":"\\u00e4"}'},
        {"type": "function_call_output", "call_id": "t1", "output": "a b"},
        {"role": "user", "content": "So?"},
    ]
    call = {"id": "t1", "type": "function", "function": {"name": "list_files", "arguments": '{"path": "ä"}'}}
    there: Any = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look " * 50}, {"type": "image_url", "image_url": {"url": image}}],
        },
        {"role": "assistant", "content": "I list.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "a b"},
        {"role": "user", "content": "So?"},
    ]
    function = {name: LIST_TOOL[name] for name in ("name", "description", "parameters")}
    tools: Any = [{"type": "function", "function": function}]
    used = client.chat.completions.create(model="sim", messages=there, tools=tools).usage
    answer = response(client, here, instructions="Be brief.", tools=[LIST_TOOL]).usage
    assert used is not None
    assert answer is not None
    assert answer.input_tokens == used.prompt_tokens
    assert answer.input_tokens_details.cached_tokens == (used.prompt_tokens - 1) // 16 * 16


def _input(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


def test_errors_are_openais(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        response(client, model="nobody")
    with pytest.raises(openai.NotFoundError, match="resp_1"):
        response(client, previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError) as refused:
        response(client, "word" * 5000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    with pytest.raises(openai.BadRequestError, match="web_search_call"):
        response(client, [{"type": "web_search_call", "id": "ws_1", "status": "completed"}])


def test_a_stream_is_reset_where_it_was_ordered(client: openai.OpenAI) -> None:
    extra = {"sim": {"abort_after_chunks": 4}}
    stream = client.responses.create(model="sim", input="hello", stream=True, extra_body=extra)
    seen: list[str] = []
    with pytest.raises(openai.APIConnectionError):  # noqa: PT012 - the reset comes somewhere in the iteration
        for event in stream:
            seen.append(event.type)  # noqa: PERF401 - what came before the error counts
    assert len(seen) == 4
