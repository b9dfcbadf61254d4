"""The parts of OpenAI's answers that the gateway reads: usage, choices' ends, and what counts as generated.

Decoded with msgspec straight from the bytes; everything else in an answer is skipped, never rebuilt.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.domain.usage import Coverage, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")

TOKENS_MAX = 10**8
"""More than any context: an engine that claims more has miscounted, and believing it would bury a tenant in debt."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, not of the expected shape, or nested too deeply."""

_LONGEST_TOKEN_BYTES = 16
_BYTES_PER_TOKEN = 4


def is_null(raw: msgspec.Raw) -> bool:
    """Whether a field is missing or null."""
    return bytes(raw) in (b"", b"null")


def if_readable(decode: Callable[[msgspec.Raw], R], raw: msgspec.Raw) -> R | None:
    """Return what `decode` makes of a field, None when that is missing, null, or of another shape."""
    if is_null(raw):
        return None
    try:
        return decode(raw)
    except UNREADABLE:
        return None


class PromptDetails(msgspec.Struct):
    """`usage.prompt_tokens_details`."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """`usage.completion_tokens_details`."""

    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct):
    """`usage`, as engines send it; an explicit zero is a zero."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def tokens(self) -> TokenUsage | None:
        """Return the usage, None when it says nothing usable or possible. Parts are cut to what they are part of."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None and self.total_tokens is not None:
            prompt = self.total_tokens - (completion or 0)
        if prompt is None:
            return None
        cached = (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0
        reasoning = (self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0
        return possible_usage(prompt, completion, cached=cached, reasoning=reasoning)


def possible_usage(prompt: int, completion: int | None, *, cached: int, reasoning: int) -> TokenUsage | None:
    """Return what an engine counted, None when that cannot be. Parts are cut to what they are part of."""
    completion = completion or 0
    if max(prompt, completion) > TOKENS_MAX:
        return None
    prompt, completion = max(prompt, 0), max(completion, 0)
    return TokenUsage(
        prompt=prompt,
        cached=min(max(cached, 0), prompt),
        completion=completion,
        reasoning=min(max(reasoning, 0), completion),
        coverage=Coverage.EXACT,
    )


class CalledFunction(msgspec.Struct):
    """`function` of a tool call, or a piece of it: what was generated, in JSON that frames it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of it."""

    function: CalledFunction = msgspec.field(default_factory=CalledFunction)


class Delta(msgspec.Struct):
    """What a chunk, or a whole message, adds: text, reasoning, or a tool call."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")

    def generated_bytes(self) -> int:
        """Return the size of what was generated, in bytes of text; of a tool call without the JSON that frames it."""
        size = len(self.content or "") + len(self.reasoning_content or self.reasoning or "") + len(self.refusal or "")
        return size + (0 if is_null(self.tool_calls) else _called_bytes(self.tool_calls))


class Choice(msgspec.Struct):
    """One choice of a chunk or of a whole answer (chat and legacy completions)."""

    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    def generated_bytes(self) -> int:
        """Return the size of what this choice adds."""
        part = self.delta or self.message
        return (part.generated_bytes() if part is not None else 0) + len(self.text or "")


class Answer(msgspec.Struct):
    """A chunk of a stream, or a whole answer. `choices` is None where the field is missing."""

    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    error: msgspec.Raw = msgspec.Raw(b"")

    @property
    def failed(self) -> bool:
        """Whether the engine reports an error in here."""
        return not is_null(self.error)


class _BareChoice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _OddUsage(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"")


class _OddContent(msgspec.Struct):
    choices: list[_BareChoice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(Answer).decode
_decode_calls = msgspec.json.Decoder(list[ToolCall]).decode
_decode_odd_usage = msgspec.json.Decoder(_OddUsage).decode
_decode_odd_content = msgspec.json.Decoder(_OddContent).decode
_decode_usage = msgspec.json.Decoder(WireUsage, strict=False).decode


def is_json(data: bytes) -> bool:
    """Whether bytes are JSON, of whatever shape; how deep it is nested and what its texts are made of do not matter."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    except RecursionError:
        pass
    return True


def read_answer(data: bytes) -> Answer | None:
    """Decode a chunk or an answer, None when it is not of this shape (it is passed on all the same).

    Content of an unforeseen type (parts instead of a string, say) costs its own count only, never the usage or the
    finish_reason; neither does usage of an unforeseen type cost anything but itself.
    """
    try:
        return _decode(data)
    except UNREADABLE:
        pass
    try:
        odd_usage = _decode_odd_usage(data)
        usage = if_readable(_decode_usage, odd_usage.usage)
        return Answer(choices=odd_usage.choices, usage=usage, error=odd_usage.error)
    except UNREADABLE:
        pass
    try:
        odd = _decode_odd_content(data)
    except UNREADABLE:
        return None
    choices = [Choice(index=c.index, finish_reason=c.finish_reason) for c in odd.choices or ()]
    usage = if_readable(_decode_usage, odd.usage)
    return Answer(choices=None if odd.choices is None else choices, usage=usage, error=odd.error)


def _called_bytes(raw: msgspec.Raw) -> int:
    """Return the size of what was generated of tool calls: all of it where they are of an unforeseen shape."""
    calls = if_readable(_decode_calls, raw)
    if calls is None:
        return len(bytes(raw))
    return sum(len(call.function.name or "") + len(call.function.arguments or "") for call in calls)


def estimated_tokens(generated_bytes: int) -> int:
    """Return how many tokens a delta is likely to be: engines send one at a time, or several at once when behind."""
    if generated_bytes == 0:
        return 0
    return 1 if generated_bytes <= _LONGEST_TOKEN_BYTES else math.ceil(generated_bytes / _BYTES_PER_TOKEN)
