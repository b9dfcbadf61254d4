"""What happens to each event of a stream on its way: count it, restore the model's name, hold back what was not asked.

Chunks of one stream share their first bytes up to the model's name, so the name is restored by swapping that prefix
once it is known, not by taking every chunk apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gateway.domain.call import Fields
from gateway.relay.sse import EventSplitter, data_of
from gateway.relay.wire import UNREADABLE, read_answer

if TYPE_CHECKING:
    from gateway.relay.meter import Meter

DONE_EVENT = b"data: [DONE]\n\n"

_LINE_END = re.compile(rb"\r\n|\n|\r")
_decode_fields = msgspec.json.Decoder(Fields).decode


class StreamPump:
    """Turns bytes from an engine into bytes for the client. `failure` holds an error that the engine reported."""

    __slots__ = (
        "_meter",
        "_model_json",
        "_prefix",
        "_prefix_restored",
        "_splitter",
        "_usage_wanted",
        "done",
        "failure",
    )

    def __init__(self, requested_model: str, meter: Meter, *, usage_wanted: bool) -> None:
        self._splitter = EventSplitter()
        self._meter = meter
        self._model_json = msgspec.json.encode(requested_model)
        self._usage_wanted = usage_wanted
        self._prefix = b""
        self._prefix_restored = b""
        self.done = False
        """Whether the engine has said [DONE]; the event itself is held back, the relay decides how the stream ends."""
        self.failure: bytes | None = None

    def feed(self, data: bytes, now_s: float) -> bytes:
        """Return what goes to the client now, possibly nothing."""
        out = [self._pass(event, now_s) for event in self._splitter.feed(data)]
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self, now_s: float) -> bytes:
        """The engine's stream has ended: return what an unclosed last event still holds."""
        rest = self._splitter.finish()
        return self._pass(rest + b"\n\n", now_s) if rest.strip() else b""

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
            return self._restored(event, data)
        if answer.failed:
            self.failure = data
            return b""
        self._meter.count(answer, now_s)
        if answer.usage is not None and not answer.choices and not self._usage_wanted:
            return b""  # the extra chunk that only the gateway asked for
        return self._restored(event, data)

    def _restored(self, event: bytes, data: bytes) -> bytes:
        prefix = self._prefix
        if prefix and data.startswith(prefix):
            if prefix == self._prefix_restored:
                return event
            return _with_data(event, data, self._prefix_restored + data[len(prefix) :])
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
        return _with_data(event, data, msgspec.json.encode(fields))

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


def _with_data(event: bytes, data: bytes, replaced: bytes) -> bytes:
    """Return an event whose data is `data` with other data; its other lines (`event:`, `id:`) stay."""
    if len(event) == len(data) + 8 and event.startswith(b"data: "):  # nothing but one line and the blank one
        return b"data: %b\n\n" % replaced
    others = [line + b"\n" for line in _LINE_END.split(event) if line and not line.startswith(b"data:")]
    return b"%bdata: %b\n\n" % (b"".join(others), replaced.replace(b"\n", b"\ndata: "))
