"""The official OpenAI SDK's responses through the gateway: what Codex asks for, accounted for as it sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.contract.conftest import sdk
from tests.support.ledger import all_closed, closed_event

if TYPE_CHECKING:
    from openai.types.responses import FunctionToolParam, ResponseUsage

    from tests.support.stack import Stack

LOOKUP: FunctionToolParam = {
    "type": "function",
    "name": "lookup",
    "description": "looks something up",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    "strict": False,
}
THINKING = {"sim": {"reasoning_tokens": 5}}


def assert_billed(row: dict[str, Any], usage: ResponseUsage | None) -> None:
    """Assert that a row of the ledger says what the SDK was told."""
    assert usage is not None
    assert (row["status"], row["coverage"], row["endpoint"]) == ("ok", "exact", "responses")
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], row["reasoning_tokens"]) == (
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens,
    )


def test_a_response_is_billed_as_the_sdk_sees_it(stack: Stack, client: openai.OpenAI) -> None:
    answer = client.responses.create(model="coder", input="hello", instructions="Be brief.", extra_body=THINKING)
    assert (answer.status, answer.model) == ("completed", "coder")
    assert answer.output_text
    assert answer._request_id is not None
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 5
    assert_billed(closed_event(stack.dsn, answer._request_id), answer.usage)


def test_a_stream_says_the_same_as_the_whole_response(stack: Stack) -> None:
    tenant = stack.tenant()
    with sdk(stack, tenant.key) as client:
        whole = client.responses.create(model="coder", input="hello")
        with client.responses.stream(model="coder", input="hello") as stream:
            told = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            streamed = stream.get_final_response()
    assert told == streamed.output_text == whole.output_text
    assert (streamed.model, streamed.status) == ("coder", "completed")
    rows = all_closed(stack.dsn, tenant, 2)
    assert_billed(rows[1], streamed.usage)
    assert [row["streamed"] for row in rows] == [False, True]


def test_a_tool_is_called_and_its_output_answered(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": 'call lookup {"query": "one"}'}]
    (call,) = client.responses.create(model="coder", input=asked, tools=[LOOKUP]).output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("lookup", {"query": "one"})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "found one"}
    asked += [call.model_dump(exclude_none=True), output]
    assert client.responses.create(model="coder", input=asked, tools=[LOOKUP]).output_text


def test_what_needs_a_memory_is_refused_with_what_to_do(stack: Stack) -> None:
    with sdk(stack, stack.tenant().key, max_retries=2) as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="coder", input="hello", previous_response_id="resp_1")
    assert refused.value.param == "previous_response_id"
    assert "send the whole conversation" in refused.value.message


def test_closing_a_stream_reaches_the_engine_and_is_billed(stack: Stack, client: openai.OpenAI) -> None:
    aborted = stack.engine.counters()["aborted"]
    endless = {"sim": {"output_tokens": 1000, "tokens_per_second": 50}}
    stream = client.responses.create(model="coder", input="hello", stream=True, extra_body=endless)
    deltas = (event for event in stream if event.type == "response.output_text.delta")
    assert [next(deltas).type for _ in range(3)]
    stream.close()
    stack.engine.wait_for(lambda counters: counters["aborted"] == aborted + 1)
    row = closed_event(stack.dsn, stream.response.headers["x-request-id"])
    assert (row["status"], row["coverage"]) == ("client_closed", "estimated")
    assert row["completion_tokens"] >= 3


def test_a_stream_that_breaks_off_is_an_error_and_no_end(stack: Stack, client: openai.OpenAI) -> None:
    breaks = {"sim": {"abort_after_chunks": 8}}
    stream = client.responses.create(model="coder", input="hello", stream=True, extra_body=breaks)
    with pytest.raises(openai.APIError):  # noqa: PT012 - the break comes somewhere in the iteration
        for event in stream:
            assert event.type != "response.completed"
    row = closed_event(stack.dsn, stream.response.headers["x-request-id"])
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")
