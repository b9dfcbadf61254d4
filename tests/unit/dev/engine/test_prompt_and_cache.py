"""The chat template and the prefix cache: what counts as prompt, and what of it was seen before."""

from typing import Any

import msgspec
import pytest

from gateway.dev.engine.prefix_cache import BLOCK_TOKENS, PrefixCache, block_hashes
from gateway.dev.engine.prompt import MEDIA_TOKENS, render_chat
from gateway.dev.engine.requests import Message, Tool
from gateway.dev.engine.tokenizer import TOKEN_BYTES, count_tokens


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


def block(letter: str) -> bytes:
    return letter.encode() * BLOCK_TOKENS * TOKEN_BYTES


def cached(cache: PrefixCache, prompt: bytes, salt: str | None = None) -> int:
    return cache.cached_tokens(prompt, block_hashes(prompt, salt))


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (block("a") + block("b") + b"!", 2 * BLOCK_TOKENS),
        (block("a") + block("c"), BLOCK_TOKENS),
        (block("b") + block("b"), 0),
        # The last token is never taken from the cache, so the last full block is not either.
        (block("a") + block("b"), BLOCK_TOKENS),
        (block("a")[:-1], 0),
        (b"", 0),
    ],
)
def test_only_a_whole_prefix_of_blocks_is_cached(prompt: bytes, tokens: int) -> None:
    cache = PrefixCache(1_000)
    cache.store(block_hashes(block("a") + block("b")))
    assert cached(cache, prompt) == tokens
    assert cached(cache, prompt) < max(1, count_tokens(prompt))


def test_another_salt_shares_nothing() -> None:
    cache = PrefixCache(1_000)
    prompt = block("a") + b"!"
    cache.store(block_hashes(prompt, "one"))
    assert (cached(cache, prompt, "one"), cached(cache, prompt, "two"), cached(cache, prompt)) == (BLOCK_TOKENS, 0, 0)


def test_a_full_cache_forgets_tails_before_prefixes_and_the_oldest_first() -> None:
    cache = PrefixCache(3 * BLOCK_TOKENS)
    long, other = block("a") + block("b") + b"!", block("c") + block("d") + b"!"
    cache.store(block_hashes(long))
    cache.store(block_hashes(other))
    assert cached(cache, long) == BLOCK_TOKENS
    assert cached(cache, other) == 2 * BLOCK_TOKENS
