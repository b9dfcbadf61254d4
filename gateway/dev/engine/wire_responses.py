"""vLLM's bytes of /v1/responses: one response of output items, or the numbered events that build it up.

A stream adds an item when the kind of what is said changes: `reasoning`, `message`, and a `function_call` for every
call. `response.created` and `response.in_progress` go out at once, so its first byte tells nothing of the first token.
An answer that was cut ends with `response.completed` too, as in vLLM: its status is `incomplete`.
"""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from gateway.dev.engine.core import Job
from gateway.dev.engine.generation import Answer, Kind
from gateway.dev.engine.responses_request import ResponsesRequest
from gateway.dev.engine.wire import Wire, arguments_of, calls_made, encode, named_event, told

_ID_PREFIXES: dict[Kind, str] = {"reasoning": "rs", "content": "msg", "tool_arguments": "fc"}
_TEXT_EVENTS: dict[Kind, str] = {"reasoning": "response.reasoning_text", "content": "response.output_text"}


class ResponsesWire(Wire):
    """`response`, whole and in events."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.created_s = int(time.time())
        self._request = request
        self._events = 0
        self._open: Kind | None = None
        self._call = 0
        self._ids: list[str] = []

    def greeting(self, _job: Job) -> Sequence[bytes]:
        """Return `response.created` and `response.in_progress`."""
        response = self._response("in_progress", [], None)
        return [self._event(f"response.{name}", response=response) for name in ("created", "in_progress")]

    def opening(self, _job: Job) -> Sequence[bytes]:
        """Return nothing: the response was opened with the head."""
        return ()

    def token(self, job: Job, position: int) -> Sequence[bytes]:
        """Return what a token adds, after the start of its item where it is the first of one."""
        answer = job.answers[0]
        piece = answer.pieces[position]
        if piece.kind == "tool_name":
            closing = self._close_item(answer)
            self._call = piece.call
            return (*closing, *self._open_item("tool_arguments", answer))
        if piece.kind == "silent" or not piece.text:
            return ()
        opening: list[bytes] = []
        if piece.kind != self._open:
            opening = [*self._close_item(answer), *self._open_item(piece.kind, answer)]
        if piece.kind == "tool_arguments":
            return (*opening, self._item_event("response.function_call_arguments.delta", delta=piece.text))
        return (*opening, self._text_event(piece.kind, "delta", delta=piece.text))

    def ending(self, job: Job) -> Sequence[bytes]:
        """Return the end of the last item, and `response.completed` with the whole response."""
        closing = self._close_item(job.answers[0])
        return (*closing, self._event("response.completed", response=self._final(job)))

    def whole(self, job: Job) -> bytes:
        """Return the body of an answer that is not streamed."""
        return encode(self._final(job))

    def _open_item(self, kind: Kind, answer: Answer) -> list[bytes]:
        self._open = kind
        self._ids.append(f"{_ID_PREFIXES[kind]}_{uuid.uuid4().hex}")
        added = {"output_index": len(self._ids) - 1, "item": self._item(kind, answer, "in_progress")}
        events = [self._event("response.output_item.added", **added)]
        if kind != "tool_arguments":
            events.append(self._item_event("response.content_part.added", content_index=0, part=_part(kind, "")))
        return events

    def _close_item(self, answer: Answer) -> list[bytes]:
        kind, self._open = self._open, None
        if kind is None:
            return []
        if kind == "tool_arguments":
            said = {"name": answer.calls[self._call].name, "arguments": arguments_of(answer, self._call)}
            events = [self._item_event("response.function_call_arguments.done", **said)]
        else:
            text = answer.text_of(kind)
            events = [
                self._text_event(kind, "done", text=text),
                self._item_event("response.content_part.done", content_index=0, part=_part(kind, text)),
            ]
        done = {"output_index": len(self._ids) - 1, "item": self._item(kind, answer, "completed")}
        return [*events, self._event("response.output_item.done", **done)]

    def _item(self, kind: Kind, answer: Answer, status: str) -> dict[str, Any]:
        """Return the last item as it begins (`in_progress`: with nothing said) or as it ended."""
        done = status == "completed"
        head = {"id": self._ids[-1], "status": status}
        if kind == "tool_arguments":
            call = answer.calls[self._call]
            arguments = arguments_of(answer, self._call) if done else ""
            return {"type": "function_call", **head, "call_id": call.id, "name": call.name, "arguments": arguments}
        content = [_part(kind, answer.text_of(kind))] if done else []
        if kind == "reasoning":
            return {"type": "reasoning", **head, "summary": [], "content": content}
        return {"type": "message", **head, "role": "assistant", "content": content}

    def _output(self, answer: Answer) -> list[dict[str, Any]]:
        """Return all items of an answer, those that a stream has told of under the ids they had there."""
        ids, self._ids = self._ids, []
        spoken: list[tuple[Kind, int]] = [(kind, 0) for kind in _TEXT_EVENTS if answer.text_of(kind)]
        spoken += [("tool_arguments", call) for call in calls_made(answer)]
        output: list[dict[str, Any]] = []
        for at, (kind, call) in enumerate(spoken):
            self._call = call
            self._ids.append(ids[at] if at < len(ids) else f"{_ID_PREFIXES[kind]}_{uuid.uuid4().hex}")
            output.append(self._item(kind, answer, "completed"))
        return output

    def _final(self, job: Job) -> dict[str, Any]:
        answer = job.answers[0]
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        return self._response(status, self._output(answer), None if job.behaviour.no_usage else usage(job))

    def _response(self, status: str, output: list[dict[str, Any]], used: dict[str, Any] | None) -> dict[str, Any]:
        request = self._request
        return {
            "id": self.id,
            "created_at": self.created_s,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "metadata": request.metadata,
            "model": request.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "tool_choice": request.tool_choice,
            "tools": request.tools,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "background": False,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": request.reasoning,
            "service_tier": "auto",
            "status": status,
            "text": request.text,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": used,
            "user": None,
        }

    def _text_event(self, kind: Kind, name: str, /, **fields: Any) -> bytes:
        if kind == "content":
            fields["logprobs"] = []
        return self._item_event(f"{_TEXT_EVENTS[kind]}.{name}", content_index=0, **fields)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        number = self._events
        self._events += 1
        return named_event(name, {"sequence_number": number, **fields})

    def _item_event(self, name: str, /, **fields: Any) -> bytes:
        return self._event(name, item_id=self._ids[-1], output_index=len(self._ids) - 1, **fields)


def usage(job: Job) -> dict[str, Any]:
    """Return the usage of a job as it stands: cached tokens are part of the input, reasoning of the output."""
    used = {
        "input_tokens": job.prompt_tokens,
        "input_tokens_details": {"cached_tokens": job.cached_tokens},
        "output_tokens": job.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens(job.answers[0])},
        "total_tokens": job.prompt_tokens + job.generated_tokens,
    }
    return told(job, used)


def reasoning_tokens(answer: Answer) -> int:
    """Return how many tokens of an answer are reasoning."""
    return sum(piece.kind == "reasoning" for piece in answer.pieces)


def _part(kind: Kind, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
