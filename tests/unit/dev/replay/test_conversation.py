"""The text of a replay: as large as planned, each request the last one with more after it, the same for a seed."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from gateway.dev.engine.prompt import render_chat
from gateway.dev.engine.requests import ChatRequest, decode
from gateway.dev.engine.tokenizer import count_tokens
from gateway.dev.replay.conversation import Conversation, Texts
from gateway.dev.replay.plan import Turn, turns_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ASSISTANT = b"<|im_start|>assistant\n"


def bodies(seed: int, scale: float, count: int, **options: bool) -> Iterator[tuple[Turn, bytes]]:
    """Yield the turns of one agent and what it sends."""
    texts, conversations = Texts(seed, scale), dict[int, Conversation]()
    for turn in islice(turns_of(seed, 0, scale), count):
        conversation = conversations.setdefault(turn.session, Conversation(texts, 0, turn.session))
        yield turn, conversation.body(turn, "m", **{"stream": True, "exact_output": True} | options)


def prompt_of(body: bytes) -> bytes:
    request = decode(body, ChatRequest)
    return render_chat(request.messages, request.tools)


@pytest.mark.parametrize(("scale", "near"), [(1.0, 0.002), (0.01, 0.06)])
def test_a_prompt_is_as_large_as_planned(scale: float, near: float) -> None:
    for turn, body in bodies(1, scale, 40):
        assert count_tokens(prompt_of(body)) == pytest.approx(turn.input_tokens, rel=near)


def test_each_prompt_begins_with_the_one_before_it() -> None:
    last: dict[int, bytes] = {}
    for turn, body in bodies(2, 0.01, 200):
        prompt = prompt_of(body)
        if not turn.first:
            assert prompt.startswith(last[turn.session].removesuffix(ASSISTANT))
        last[turn.session] = prompt
    starts = {prompt[:400] for prompt in last.values()}
    assert len(last) > 2
    assert len(starts) == 1, "system prompt and tools are shared"


def test_a_request_is_one_that_an_agent_makes() -> None:
    (first, body), (_, later) = islice(bodies(3, 0.01, 2), 2)
    document: Any = json.loads(body)
    assert (document["model"], document["stream"]) == ("m", True)
    assert (document["max_tokens"], document["ignore_eos"]) == (first.output_tokens, True)
    assert document["stream_options"] == {"include_usage": True}
    assert [message["role"] for message in document["messages"]] == ["system", "user"]
    after: Any = json.loads(later)["messages"]
    assert [message["role"] for message in after] == ["system", "user", "assistant", "tool"]
    assert after[2]["tool_calls"][0]["id"] == after[3]["tool_call_id"]
    names = [tool["function"]["name"] for tool in document["tools"]]
    assert after[2]["tool_calls"][0]["function"]["name"] in names


def test_what_was_not_asked_for_is_not_sent() -> None:
    ((_, body),) = bodies(3, 0.01, 1, stream=False, exact_output=False)
    assert set(json.loads(body)) == {"model", "tools", "messages", "max_tokens"}


def test_the_same_seed_says_the_same() -> None:
    first, second, other = ([body for _, body in bodies(seed, 0.01, 5)] for seed in (4, 4, 5))
    assert first == second
    assert first != other
