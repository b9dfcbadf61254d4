"""What all streams have in common on their way, whatever dialect their events are in."""

from __future__ import annotations

import abc
import math
import re
from typing import TYPE_CHECKING

import msgspec

from gateway.domain.call import Fields
from gateway.relay.sse import EventSplitter, data_of
from gateway.relay.wire import UNREADABLE, is_json

if TYPE_CHECKING:
    from gateway.relay.meter import Meter

HELD_EVENTS_MAX = 16

_LINE_END = re.compile(rb"\r\n|\n|\r")
_decode_fields = msgspec.json.Decoder(Fields).decode


class Pump(abc.ABC):
    """Turns bytes from an engine into bytes for the client."""

    __slots__ = ("_ending", "_meter", "_splitter", "done", "failure")

    def __init__(self, meter: Meter, ending: bytes) -> None:
        self._splitter = EventSplitter()
        self._meter = meter
        self.done = False
        """Whether the engine has said that it is done; that event is held back: the relay decides how a stream ends."""
        self._ending = ending
        self.failure: bytes | None = None
        """What ended the stream before its time: an error that the engine reported, its JSON, or what is no JSON."""

    @property
    def ending(self) -> bytes:
        """The last events, which end a finished stream properly."""
        return self._ending

    @property
    @abc.abstractmethod
    def complete(self) -> bool:
        """Whether the answer was finished, so that the stream may end properly."""

    def feed(self, data: bytes, now_s: float) -> bytes:
        """Return what goes to the client now, possibly nothing.

        What comes in one piece with the first token beyond an allowance does not count and goes nowhere: the stream is
        to be cut short. An engine may be far ahead of a client that reads slowly.
        """
        allowance = self._meter.output_allowance
        if allowance == math.inf:
            out = [self._pass(event, now_s) for event in self._splitter.feed(data)]
        else:
            out = []
            for event in self._splitter.feed(data):
                out.append(self._pass(event, now_s))
                if self._meter.completion_tokens > allowance:
                    break
        return out[0] if len(out) == 1 else b"".join(out)

    def finish(self, now_s: float) -> bytes:
        """The engine's stream has ended: return what an unclosed last event still holds."""
        rest = self._splitter.finish()
        return self._pass(rest + b"\n\n", now_s) if rest.strip() else b""

    @abc.abstractmethod
    def cut_short(self) -> bytes:
        """Return what ends the answer where it stands, as if it had become too long; an error event comes after it."""

    def _garbage(self, data: bytes) -> bool:
        """Whether data is no JSON at all, which no client could read: then the stream has failed.

        What is merely of an unforeseen shape passes.
        """
        if is_json(data):
            return False
        self.failure = data
        return True

    @abc.abstractmethod
    def _pass(self, event: bytes, now_s: float) -> bytes:
        """Take in one event and return what goes to the client of it."""


class TypedPump(Pump):
    """A stream of events that each say their type, with one answer in it.

    What comes before the first content is held back, since engines greet before they compute: until something is said,
    another engine may still take over, and signs of life are sent.
    """

    __slots__ = ("_held", "_model_json")

    def __init__(self, requested_model: str, meter: Meter, ending: bytes) -> None:
        super().__init__(meter, ending)
        self._model_json = msgspec.json.encode(requested_model)
        self._held: list[bytes] | None = []

    @abc.abstractmethod
    def _read(self, event: bytes, data: bytes, now_s: float) -> bytes:
        """Take in one event that has data. Raises one of UNREADABLE for an unforeseen shape, before anything else."""

    def _pass(self, event: bytes, now_s: float) -> bytes:
        if self.done or self.failure is not None:
            return b""
        data = data_of(event)
        if not data:
            return b"" if event.startswith(b":") else self._hold(event)
        if data == b"[DONE]":  # some engines say it in every dialect; it is no end of this one
            return b""
        try:
            return self._read(event, data, now_s)
        except UNREADABLE:
            return b"" if self._garbage(data) else self._release(event)

    def _hold(self, event: bytes) -> bytes:
        """Return what goes out now of an event that says nothing yet."""
        if self._held is None:
            return event
        self._held.append(event)
        return self._release() if len(self._held) == HELD_EVENTS_MAX else b""

    def _release(self, event: bytes = b"") -> bytes:
        """Return an event, with what was held back before it."""
        if self._held is None:
            return event
        held, self._held = self._held, None
        return b"".join([*held, event])


def with_nested_model(event: bytes, data: bytes, field: str, model_json: bytes) -> bytes:
    """Return an event whose data has an object under `field`, with another model's name in that object."""
    try:
        fields = _decode_fields(data)
        inner = _decode_fields(fields[field])
    except (*UNREADABLE, KeyError):
        return event
    if "model" not in inner or bytes(inner["model"]) == model_json:
        return event
    inner["model"] = msgspec.Raw(model_json)
    fields[field] = msgspec.Raw(msgspec.json.encode(inner))
    return with_data(event, data, msgspec.json.encode(fields))


def with_data(event: bytes, data: bytes, replaced: bytes) -> bytes:
    """Return an event whose data is `data` with other data; its other lines (`event:`, `id:`) stay."""
    if len(event) == len(data) + 8 and event.startswith(b"data: "):  # nothing but one line and the blank one
        return b"data: %b\n\n" % replaced
    others = [line + b"\n" for line in _LINE_END.split(event) if line and not line.startswith(b"data:")]
    return b"%bdata: %b\n\n" % (b"".join(others), replaced.replace(b"\n", b"\ndata: "))
