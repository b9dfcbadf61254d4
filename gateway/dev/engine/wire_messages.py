"""vLLM's bytes of /v1/messages: one message of blocks, or the events that build it up.

A stream opens a block when the kind of what is said changes: `thinking` (which ends with a signature), `text`, and a
`tool_use` for every call. Its first event does not know of the cache and counts the whole prompt as input; the counts
of `message_delta` are the ones that hold.
"""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from gateway.dev.engine.core import Job
from gateway.dev.engine.generation import Answer, Kind, Piece
from gateway.dev.engine.wire import Wire, arguments_of, calls_made, encode, named_event, told

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_DELTAS: dict[Kind, tuple[str, str]] = {
    "reasoning": ("thinking_delta", "thinking"),
    "content": ("text_delta", "text"),
    "tool_arguments": ("input_json_delta", "partial_json"),
}


class MessagesWire(Wire):
    """`message`, whole and in events."""

    def __init__(self, model: str, request_id: str | None) -> None:
        # The id is that of the chat completion that vLLM makes of the request.
        self.id = f"chatcmpl-{request_id or uuid.uuid4().hex}"
        self.model = model
        self._block = -1
        self._open: Kind | None = None

    def opening(self, job: Job) -> Sequence[bytes]:
        """Return `message_start`, with the message as it stands before anything is said."""
        message = self._message() | {"content": [], "stop_reason": None, "stop_sequence": None}
        if not job.behaviour.no_usage:
            message["usage"] = told(job, {"input_tokens": job.prompt_tokens, "output_tokens": 0})
        return (named_event("message_start", {"message": message}),)

    def token(self, job: Job, position: int) -> Sequence[bytes]:
        """Return what a token adds, after the start of its block where it is the first of one."""
        answer = job.answers[0]
        piece = answer.pieces[position]
        if piece.kind == "tool_name":
            call = answer.calls[piece.call]
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            return (*self._stop_block(), self._start_block("tool_arguments", block))
        if piece.kind == "silent" or not piece.text:
            return ()
        if piece.kind == self._open:
            return (self._delta(piece),)
        field = "thinking" if piece.kind == "reasoning" else "text"
        return (*self._stop_block(), self._start_block(piece.kind, {"type": field, field: ""}), self._delta(piece))

    def ending(self, job: Job) -> Sequence[bytes]:
        """Return the end of the last block, `message_delta` with the reason and the usage, and `message_stop`."""
        fields: dict[str, Any] = {"delta": _stopped(job.answers[0])}
        if not job.behaviour.no_usage:
            fields["usage"] = usage(job)
        return (*self._stop_block(), named_event("message_delta", fields), named_event("message_stop", {}))

    def whole(self, job: Job) -> bytes:
        """Return the body of an answer that is not streamed."""
        answer = job.answers[0]
        content: list[dict[str, Any]] = []
        if thinking := answer.text_of("reasoning"):
            content.append({"type": "thinking", "thinking": thinking, "signature": uuid.uuid4().hex})
        if text := answer.text_of("content"):
            content.append({"type": "text", "text": text})
        for at in calls_made(answer):
            call = answer.calls[at]
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input_of(answer, at)})
        body = self._message() | {"content": content, **_stopped(answer)}
        if not job.behaviour.no_usage:
            body["usage"] = usage(job)
        return encode(body)

    def _message(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model}

    def _start_block(self, kind: Kind, block: dict[str, Any]) -> bytes:
        self._open = kind
        self._block += 1
        return named_event("content_block_start", {"index": self._block, "content_block": block})

    def _delta(self, piece: Piece) -> bytes:
        kind, field = _DELTAS[piece.kind]
        return named_event("content_block_delta", {"index": self._block, "delta": {"type": kind, field: piece.text}})

    def _stop_block(self) -> Sequence[bytes]:
        closed, self._open = self._open, None
        if closed is None:
            return ()
        stop = named_event("content_block_stop", {"index": self._block})
        if closed != "reasoning":
            return (stop,)
        signature = {"type": "signature_delta", "signature": uuid.uuid4().hex}
        return (named_event("content_block_delta", {"index": self._block, "delta": signature}), stop)


def usage(job: Job) -> dict[str, Any]:
    """Return the usage of a job as it stands: here `input_tokens` leaves out what came from the cache."""
    used = {
        "input_tokens": job.prompt_tokens - job.cached_tokens,
        "output_tokens": job.generated_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": job.cached_tokens,
    }
    return told(job, used)


def _stopped(answer: Answer) -> dict[str, str | None]:
    if answer.stop_reason is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_reason}
    return {"stop_reason": _STOP_REASONS[answer.finish_reason], "stop_sequence": None}


def _input_of(answer: Answer, call: int) -> Any:
    """Return a call's arguments; an answer that was cut within them leaves none."""
    try:
        return json.loads(arguments_of(answer, call))
    except ValueError:
        return {}
