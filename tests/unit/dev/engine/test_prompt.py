"""The chat template: what counts as prompt."""

from typing import Any

import msgspec

from gateway.dev.engine.prompt import MEDIA_TOKENS, render_chat
from gateway.dev.engine.requests import Message, Tool
from gateway.dev.engine.tokenizer import TOKEN_BYTES


def rendered(*messages: dict[str, Any], tools: list[Any] | None = None) -> bytes:
    return render_chat(
        msgspec.convert(messages, list[Message]),
        None if tools is None else msgspec.json.decode(msgspec.json.encode(tools), type=list[Tool]),
    )


def test_the_template_is_as_documented() -> None:
    tools = [{"type": "function", "function": {"name": "ls", "description": "lists", "parameters": {"type": "object"}}}]
    prompt = rendered({"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}, tools=tools)
    assert prompt == (
        b"<|im_start|>tools\n"
        b'{"function":{"name":"ls","description":"lists","parameters":{"type":"object"}},"type":"function"}\n<|im_end|>\n'
        b"<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_parts_and_text_render_alike_and_tool_calls_count() -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": " you"}]
    assert rendered({"role": "user", "content": parts}) == rendered({"role": "user", "content": "Hi you"})
    call = {"id": "1", "type": "function", "function": {"name": "ls", "arguments": '{"path":  "\\u00e4"}'}}
    body = msgspec.json.encode({"role": "assistant", "content": None, "tool_calls": [call]})
    calls = '<tool_call>{"name":"ls","arguments":{"path":"ä"}}</tool_call>'
    assert calls.encode() in render_chat([msgspec.json.decode(body, type=Message)], None)


def test_media_counts_the_same_whatever_its_size_and_differs_by_content() -> None:
    def image(url: str) -> bytes:
        part = msgspec.json.encode({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
        return render_chat([msgspec.json.decode(part, type=Message)], None)

    empty = rendered({"role": "user", "content": ""})
    assert len(image("data:,a")) == len(image("data:," + "b" * 1000)) == len(empty) + MEDIA_TOKENS * TOKEN_BYTES
    assert image("data:,a") != image("data:,b")
