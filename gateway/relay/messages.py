"""Answers of `/v1/messages`, Anthropic's dialect: what is read of them, and what is changed on their way.

Shapes: https://platform.claude.com/docs/en/api/messages and …/build-with-claude/streaming. A stream tells the prompt's
tokens with its first event and the completion's with the last but one; a later figure replaces an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.relay.pump import TypedPump, with_nested_model
from gateway.relay.wire import UNREADABLE, if_readable, is_null, possible_usage

if TYPE_CHECKING:
    from gateway.domain.usage import TokenUsage
    from gateway.relay.meter import Meter

STOP_EVENT = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_NOTHING = msgspec.Raw(b"")


class _Usage(msgspec.Struct):
    """`usage`: unlike OpenAI's, `input_tokens` are those that no cache was read or written for."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def updated(self, later: _Usage) -> _Usage:
        """Return this usage with the figures that `later` states."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(later, name)) is not None}
        return msgspec.structs.replace(self, **said)

    def tokens(self) -> TokenUsage | None:
        """Return the usage, None when it says nothing usable or possible."""
        if self.input_tokens is None:
            return None
        cached = self.cache_read_input_tokens or 0
        prompt = self.input_tokens + cached + (self.cache_creation_input_tokens or 0)
        return possible_usage(prompt, self.output_tokens, cached=cached, reasoning=0)


class _Delta(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Block(msgspec.Struct):
    name: str | None = None


class _Said(msgspec.Struct):
    """A block of a whole message."""

    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: msgspec.Raw = _NOTHING
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct):
    type: str | None = None
    stop_reason: str | None = None
    content: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_content = msgspec.json.Decoder(list[_Said]).decode
_decode_usage = msgspec.json.Decoder(_Usage, strict=False).decode


class MessagesPump(TypedPump):
    """A stream of Anthropic's events. The model is named in the first of them alone."""

    __slots__ = ("_block", "_usage")

    def __init__(self, requested_model: str, meter: Meter) -> None:
        super().__init__(requested_model, meter, STOP_EVENT)
        self._usage = _Usage()
        self._block: int | None = None
        """The content block that has begun and not ended."""

    @property
    def complete(self) -> bool:
        """Whether the message has a stop reason; the event after it says nothing more."""
        return self._meter.finished

    def cut_short(self) -> bytes:
        """Return the end of the block at hand, and the message's stop reason."""
        usage = {"output_tokens": self._meter.counted.completion}
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        last = _event("message_delta", {"delta": delta, "usage": usage})
        block = b"" if self._block is None else _event("content_block_stop", {"index": self._block})
        return self._release(block + last)

    def _read(self, event: bytes, data: bytes, now_s: float) -> bytes:
        read = _decode_event(data)
        if read.type == "content_block_delta":
            self._take(read, now_s)
            return self._release(event)
        if read.type == "error" or not is_null(read.error):
            self.failure = data
            return b""
        if read.type == "message_stop":
            self.done = True
            return b""
        if read.type == "message_delta":
            self._take(read, now_s)
            return self._release(event)
        if read.type == "message_start":
            return self._hold(self._begun(event, data, read.message))
        if read.type in {"content_block_start", "content_block_stop"}:
            self._block = read.index if read.type == "content_block_start" else None
        self._take(read, now_s)
        return b"" if read.type == "ping" and self._held is not None else self._hold(event)

    def _take(self, read: _Event, now_s: float) -> None:
        size = len(read.content_block.name or "") if read.content_block is not None else 0
        delta = read.delta
        stopped = False
        if delta is not None:
            size += len(delta.text or "") + len(delta.thinking or "") + len(delta.partial_json or "")
            stopped = delta.stop_reason is not None
        self._meter.take(size, now_s, finished=stopped, usage=self._later(read.usage) if read.usage else None)

    def _begun(self, event: bytes, data: bytes, message: msgspec.Raw) -> bytes:
        try:
            started = _decode_message(message)
        except UNREADABLE:
            return event
        usage = self._later(started.usage)
        if usage is not None:
            self._meter.prompt = usage
        return with_nested_model(event, data, "message", self._model_json)

    def _later(self, raw: msgspec.Raw) -> TokenUsage | None:
        usage = if_readable(_decode_usage, raw)
        if usage is None:
            return None
        self._usage = self._usage.updated(usage)
        return self._usage.tokens()


def _event(kind: str, fields: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def count_message(body: bytes, meter: Meter, now_s: float) -> bool:
    """Count a whole message; False when the body is an error. One of another shape is left to be passed on."""
    try:
        message = _decode_message(body)
    except UNREADABLE:
        return True
    if message.type == "error" or not is_null(message.error):
        return False
    usage = if_readable(_decode_usage, message.usage)
    meter.take(_said_bytes(message.content), now_s, finished=True, usage=None if usage is None else usage.tokens())
    return True


def _said_bytes(content: msgspec.Raw) -> int:
    """Return the size of what was generated, without what it is wrapped in."""
    try:
        blocks = _decode_content(content)
    except UNREADABLE:
        return len(content)
    texts = (len(block.text or "") + len(block.thinking or "") for block in blocks)
    return sum(texts) + sum(len(block.name) + len(block.input) for block in blocks if block.name)


def count_nothing(body: bytes, meter: Meter, now_s: float) -> bool:
    """Take in an answer that tells a number of tokens and has used none; False when the body is an error."""
    passed = count_message(body, meter, now_s)
    if passed:
        meter.nothing()
    return passed
