"""What the dialects share: the seam between the life of a request and the bytes that tell of it.

A `Wire` serialises one answer. It is asked for the events of a stream in their order, or for the whole at the end; it
never decides what is said or when. Field order and presence follow vLLM.
"""

import abc
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.dev.engine.core import Job
from gateway.dev.engine.generation import Answer

encode = msgspec.json.Encoder().encode


class Wire(abc.ABC):
    """One answer's serialiser. Every item of the sequences it returns is one SSE event."""

    def greeting(self, _job: Job) -> Sequence[bytes]:
        """Return the events that go out with the head, before the prompt is looked at."""
        return ()

    @abc.abstractmethod
    def opening(self, job: Job) -> Sequence[bytes]:
        """Return the events before the first token, when the prefill is done."""

    @abc.abstractmethod
    def token(self, job: Job, position: int) -> Sequence[bytes]:
        """Return the events of the tokens at `position`, of every choice that is that long."""

    @abc.abstractmethod
    def ending(self, job: Job) -> Sequence[bytes]:
        """Return the events after the last token, the one with the usage and the end mark among them."""

    @abc.abstractmethod
    def whole(self, job: Job) -> bytes:
        """Return the body of an answer that is not streamed."""


def named_event(name: str, fields: dict[str, Any]) -> bytes:
    """Return an SSE event with its name in both places: the `event` line and the `type` of its data."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode({"type": name, **fields}))


def told(job: Job, used: dict[str, Any]) -> dict[str, Any]:
    """Return a usage as the engine is to tell it: as it is, or with nothing but zeros."""
    if job.behaviour.usage != "zero":
        return used
    return {name: told(job, value) if isinstance(value, dict) else 0 for name, value in used.items()}


def arguments_of(answer: Answer, call: int) -> str:
    """Return the arguments of a call as far as they were said."""
    return "".join(piece.text for piece in answer.pieces if piece.kind == "tool_arguments" and piece.call == call)


def calls_made(answer: Answer) -> list[int]:
    """Return the indexes of the calls whose names were said before the answer was cut."""
    return [piece.call for piece in answer.pieces if piece.kind == "tool_name"]
