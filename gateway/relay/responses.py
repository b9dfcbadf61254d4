"""Answers of `/v1/responses`, OpenAI's newer dialect: what is read of them, and what is changed on their way.

Shapes: https://platform.openai.com/docs/api-reference/responses and …/responses-streaming. The first events and the
last one hold the whole response object: the model's name is in all of them, the usage in the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.domain.call import Fields
from gateway.relay.pump import TypedPump, with_nested_model
from gateway.relay.wire import UNREADABLE, if_readable, is_null, possible_usage

if TYPE_CHECKING:
    from gateway.domain.usage import TokenUsage
    from gateway.relay.meter import Meter

_NOTHING = msgspec.Raw(b"")
_ENDS = frozenset({"response.completed", "response.incomplete"})


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Item(msgspec.Struct):
    """An item of a whole response: what was said or reasoned, or a call."""

    content: list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int = 0
    delta: str | None = None
    response: msgspec.Raw = _NOTHING


class _Response(msgspec.Struct):
    status: str | None = None
    output: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING

    @property
    def failed(self) -> bool:
        """Whether the engine reports an error in here."""
        return self.status == "failed" or not is_null(self.error)


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_output = msgspec.json.Decoder(list[_Item]).decode
_decode_usage = msgspec.json.Decoder(_Usage, strict=False).decode


class ResponsesPump(TypedPump):
    """A stream of a response's events. The last of them, with the response itself, becomes `ending`."""

    __slots__ = ("_begun", "_sequence_number")

    def __init__(self, requested_model: str, meter: Meter) -> None:
        super().__init__(requested_model, meter, b"")
        self._begun = _NOTHING
        """The response as the engine greeted with it."""
        self._sequence_number = 0

    @property
    def complete(self) -> bool:
        """Whether the response came to its end."""
        return self.done

    def cut_short(self) -> bytes:
        """Return the response's last event: the greeting's response, now incomplete."""
        try:
            fields = _decode_fields(self._begun)
        except UNREADABLE:
            fields = {}
        used = self._meter.counted
        usage = {
            "input_tokens": used.prompt,
            "output_tokens": used.completion,
            "total_tokens": used.prompt + used.completion,
        }
        ended = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": usage}
        fields.update((name, msgspec.Raw(msgspec.json.encode(value))) for name, value in ended.items())
        fields["model"] = msgspec.Raw(self._model_json)
        last = {"type": "response.incomplete", "sequence_number": self._sequence_number + 1, "response": fields}
        return self._release(b"event: response.incomplete\ndata: %b\n\n" % msgspec.json.encode(last))

    def _read(self, event: bytes, data: bytes, now_s: float) -> bytes:
        read = _decode_event(data)
        self._sequence_number = read.sequence_number
        if read.delta is not None:
            self._meter.take(len(read.delta), now_s)
            return self._release(event)
        if read.type == "error":
            self.failure = data
            return b""
        return self._whole(event, data, read, now_s) if read.response else self._hold(event)

    def _whole(self, event: bytes, data: bytes, read: _Event, now_s: float) -> bytes:
        """An event with the response object in it: at the beginning, and as the last."""
        try:
            response = _decode_response(read.response)
        except UNREADABLE:
            response = _Response()
        if response.failed or read.type == "response.failed":
            self.failure = bytes(read.response)
            return b""
        restored = with_nested_model(event, data, "response", self._model_json)
        if read.type not in _ENDS:
            self._begun = msgspec.Raw(bytes(read.response))
            return self._hold(restored)
        self._meter.take(0, now_s, finished=True, usage=_tokens(response.usage))
        self.done = True
        self._ending = self._release(restored)
        return b""


def count_response(body: bytes, meter: Meter, now_s: float) -> bool:
    """Count a whole response; False when the body is an error. One of another shape is left to be passed on."""
    try:
        response = _decode_response(body)
    except UNREADABLE:
        return True
    if response.failed:
        return False
    meter.take(_said_bytes(response.output), now_s, finished=True, usage=_tokens(response.usage))
    return True


def _said_bytes(output: msgspec.Raw) -> int:
    """Return the size of what was generated, without what it is wrapped in."""
    try:
        items = _decode_output(output)
    except UNREADABLE:
        return len(output)
    calls = sum(len(item.name or "") + len(item.arguments or "") for item in items)
    return calls + sum(len(part.text or "") for item in items for part in item.content or ())


def _tokens(raw: msgspec.Raw) -> TokenUsage | None:
    usage = if_readable(_decode_usage, raw)
    if usage is None or usage.input_tokens is None:
        return None
    cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else 0
    reasoning = usage.output_tokens_details.reasoning_tokens if usage.output_tokens_details else 0
    return possible_usage(usage.input_tokens, usage.output_tokens, cached=cached or 0, reasoning=reasoning or 0)
