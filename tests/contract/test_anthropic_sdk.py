"""The official Anthropic SDK through the gateway's `/v1/messages`: messages, streams, tools, thinking, counting.

Its base URL is the gateway's without `/v1`. Claude Code and the agents built on this SDK ask the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from tests.support.ledger import all_closed, closed_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic.types import MessageParam, ToolParam

    from tests.support.stack import Stack

OUTPUT_TOKENS = 200
HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]
LOOKUP: ToolParam = {
    "name": "lookup",
    "description": "looks something up",
    "input_schema": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
ASK: dict[str, Any] = {"model": "coder", "max_tokens": OUTPUT_TOKENS, "messages": HELLO}
ENDLESS = {"sim": {"output_tokens": 1000, "tokens_per_second": 50}}


def sdk(stack: Stack, key: str, max_retries: int = 0, **options: Any) -> anthropic.Anthropic:
    """Return the SDK at the first replica, without retries unless told."""
    return anthropic.Anthropic(base_url=stack.gateway.url, api_key=key, max_retries=max_retries, **options)


@pytest.fixture
def client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    """The SDK with a key without limits."""
    with sdk(stack, stack.tenant().key) as made:
        yield made


def row_of(stack: Stack, message: anthropic.types.Message) -> dict[str, Any]:
    """Return the ledger's row of a message."""
    assert message._request_id is not None
    return closed_event(stack.dsn, message._request_id)


def test_a_message_is_answered_and_billed_as_the_sdk_sees_it(stack: Stack, client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASK)
    assert (message.type, message.role, message.model, message.stop_reason) == (
        "message",
        "assistant",
        "coder",
        "end_turn",
    )
    assert [block.type for block in message.content] == ["text"]
    row = row_of(stack, message)
    assert (row["status"], row["coverage"], row["endpoint"], row["streamed"]) == ("ok", "exact", "messages", False)
    assert row["completion_tokens"] == message.usage.output_tokens
    assert row["prompt_tokens"] == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("named", ["api_key", "auth_token", "x-api-key"])
def test_a_key_may_come_in_either_header(stack: Stack, named: str) -> None:
    """This SDK sends both of its options as a bearer token; the TypeScript SDK sends `x-api-key`, as here by hand."""
    key = stack.tenant().key
    options: dict[str, Any] = {"api_key": None, "auth_token": None} | {named: key}
    if options.pop("x-api-key", None):
        options |= {"api_key": "unused", "default_headers": {"Authorization": anthropic.Omit(), "x-api-key": key}}
    with anthropic.Anthropic(base_url=stack.gateway.url, max_retries=0, **options) as client:
        assert client.messages.create(**ASK).content
        asked = client._build_request(anthropic._models.FinalRequestOptions(method="post", url="/v1/messages"))
    sent = {name for name in ("authorization", "x-api-key") if name in asked.headers}
    assert sent == {"x-api-key" if named == "x-api-key" else "authorization"}


def test_a_stream_says_what_the_whole_answer_says(stack: Stack, client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASK)
    with client.messages.stream(**ASK) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(texts) > 1
    (block,) = whole.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert "".join(texts) == block.text
    assert (final.model, final.stop_reason) == (whole.model, whole.stop_reason)
    assert final.usage.output_tokens == whole.usage.output_tokens
    row = closed_event(stack.dsn, stream.response.headers["request-id"])
    assert (row["status"], row["coverage"], row["streamed"]) == ("ok", "exact", True)
    assert row["prompt_tokens"] == final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0)
    assert row["completion_tokens"] == final.usage.output_tokens


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_tool_is_called_and_its_result_answered(client: anthropic.Anthropic, *, streamed: bool) -> None:
    asked: MessageParam = {"role": "user", "content": 'call lookup {"query": "one"}'}

    def answer(messages: list[MessageParam]) -> anthropic.types.Message:
        given: dict[str, Any] = {**ASK, "messages": messages, "tools": [LOOKUP]}
        if not streamed:
            message: anthropic.types.Message = client.messages.create(**given)
            return message
        with client.messages.stream(**given) as stream:
            final: anthropic.types.Message = stream.get_final_message()
            return final

    first = answer([asked])
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if isinstance(block, anthropic.types.ToolUseBlock)]
    assert (call.name, call.input) == ("lookup", {"query": "one"})
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "found one"}],
    }
    last = answer([asked, {"role": "assistant", "content": first.content}, result])
    assert last.stop_reason == "end_turn"
    assert [block.type for block in last.content] == ["text"]


def test_thinking_is_a_block_of_its_own(stack: Stack, client: anthropic.Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    given = {**ASK, "max_tokens": 2048, "thinking": thinking, "extra_body": {"sim": {"reasoning_tokens": 5}}}
    with client.messages.stream(**given) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert "thinking" in kinds
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert row_of_stream(stack, stream)["completion_tokens"] == final.usage.output_tokens


def row_of_stream(stack: Stack, stream: anthropic.MessageStream[None]) -> dict[str, Any]:
    """Return the ledger's row of a stream."""
    return closed_event(stack.dsn, stream.response.headers["request-id"])


def test_tokens_are_counted_as_they_are_billed(stack: Stack, client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="coder", messages=HELLO, tools=[LOOKUP])
    message = client.messages.create(**ASK, tools=[LOOKUP])
    assert counted.input_tokens == row_of(stack, message)["prompt_tokens"] > 0


def test_hanging_up_reaches_the_engine_and_is_billed(stack: Stack, client: anthropic.Anthropic) -> None:
    aborted = stack.engine.counters()["aborted"]
    with client.messages.stream(**{**ASK, "max_tokens": 1000}, extra_body=ENDLESS) as stream:
        texts = [next(stream.text_stream) for _ in range(3)]
    stack.engine.wait_for(lambda counters: counters["aborted"] == aborted + 1)
    row = row_of_stream(stack, stream)
    assert row["status"] == "client_closed"
    assert row["completion_tokens"] >= len(texts)


def test_a_session_of_claude_code_is_in_the_ledger(stack: Stack) -> None:
    tenant = stack.tenant()
    with sdk(stack, tenant.key, default_headers={"x-claude-code-session-id": "5e55-10"}) as client:
        client.beta.messages.create(**ASK)
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert row["session"] == "5e55-10"
