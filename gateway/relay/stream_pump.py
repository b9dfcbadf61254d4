"""Streams of completions: count each chunk, restore the model's name, hold back what the client did not ask for.

Chunks of one stream share their first bytes up to the model's name, so the name is restored by swapping that prefix
once it is known, not by taking every chunk apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.domain.call import Fields
from gateway.relay.pump import Pump, with_data
from gateway.relay.sse import data_of
from gateway.relay.wire import UNREADABLE, read_answer

if TYPE_CHECKING:
    from gateway.relay.meter import Meter

DONE_EVENT = b"data: [DONE]\n\n"

_decode_fields = msgspec.json.Decoder(Fields).decode


class StreamPump(Pump):
    """`chat.completion.chunk` and its older kin."""

    __slots__ = ("_last", "_model_json", "_prefix", "_prefix_restored", "_usage_wanted")

    def __init__(self, requested_model: str, meter: Meter, *, usage_wanted: bool) -> None:
        super().__init__(meter, DONE_EVENT)
        self._model_json = msgspec.json.encode(requested_model)
        self._usage_wanted = usage_wanted
        self._last = b""
        self._prefix = b""
        self._prefix_restored = b""

    @property
    def complete(self) -> bool:
        """Whether the answer was finished. Some engines never say [DONE]; all choices having ended will do."""
        return self._meter.consistent if self.done else self._meter.finished

    @property
    def ending(self) -> bytes:
        """[DONE], and before it the gateway's own count where the client wants usage and the engine told none."""
        if not self._usage_wanted or self._meter.told:
            return DONE_EVENT
        return self._usage_event() + DONE_EVENT

    def cut_short(self) -> bytes:
        """Return a last chunk with a finish_reason for every choice that has none, and usage where it is wanted."""
        text = b'"object":"text_completion"' in self._last.replace(b" ", b"")
        content: dict[str, object] = {"text": ""} if text else {"delta": {}}
        choices = [{"index": index, **content, "finish_reason": "length"} for index in self._meter.unfinished]
        finish = self._again({"choices": choices})
        return finish + self._usage_event() if self._usage_wanted else finish

    def _usage_event(self) -> bytes:
        """Return the chunk that the engine did not send: its last one again, with usage instead of choices."""
        used = self._meter.counted
        usage = {
            "prompt_tokens": used.prompt,
            "completion_tokens": used.completion,
            "total_tokens": used.prompt + used.completion,
        }
        return self._again({"choices": [], "usage": usage})

    def _again(self, changed: dict[str, object]) -> bytes:
        """Return the engine's last chunk once more, with some fields changed."""
        try:
            fields = _decode_fields(self._last)
        except UNREADABLE:
            return b""
        if "model" in fields:
            fields["model"] = msgspec.Raw(self._model_json)
        fields.pop("usage", None)
        fields.update((name, msgspec.Raw(msgspec.json.encode(value))) for name, value in changed.items())
        return b"data: %b\n\n" % msgspec.json.encode(fields)

    def _pass(self, event: bytes, now_s: float) -> bytes:
        if self.done or self.failure is not None:
            return b""
        data = data_of(event)
        if not data:
            return b"" if event.startswith(b":") else event
        if data.strip() == b"[DONE]":
            self.done = True
            return b""
        answer = read_answer(data)
        if answer is None:
            return b"" if self._garbage(data) else self._restored(event, data)
        if answer.failed:
            self.failure = data
            return b""
        self._meter.count(answer, now_s)
        self._last = data
        if answer.usage is not None and not answer.choices and not self._usage_wanted:
            return b""  # the extra chunk that only the gateway asked for
        return self._restored(event, data)

    def _restored(self, event: bytes, data: bytes) -> bytes:
        prefix = self._prefix
        if prefix and data.startswith(prefix):
            if prefix == self._prefix_restored:
                return event
            return with_data(event, data, self._prefix_restored + data[len(prefix) :])
        try:
            fields = _decode_fields(data)
        except UNREADABLE:
            return event
        named = fields.get("model")
        if named is None:
            return event
        self._learn_prefix(data, bytes(named))
        if bytes(named) == self._model_json:
            return event
        fields["model"] = msgspec.Raw(self._model_json)
        return with_data(event, data, msgspec.json.encode(fields))

    def _learn_prefix(self, data: bytes, named: bytes) -> None:
        """Remember the bytes up to and with the model's name, if they are what they seem: the top level's own."""
        self._prefix = self._prefix_restored = b""
        if named[:1] != b'"':
            return  # the bytes of a number may begin a longer one
        end = data.find(named, data.find(b'"model"')) + len(named)
        candidate = data[:end]
        try:
            head = _decode_fields(candidate + b"}")
        except UNREADABLE:
            return
        if head and next(reversed(head)) == "model" and bytes(head["model"]) == named:
            self._prefix = candidate
            self._prefix_restored = candidate[: -len(named)] + self._model_json
