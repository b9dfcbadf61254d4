"""vLLM's bytes: chunks of a stream and whole answers, for chat and for text completions.

What is constant in the chunks of a stream (id, model, time) is serialised once, so that a chunk costs one short string
escape and a join. Field order and presence follow vLLM.
"""

import abc
import time
import uuid
from typing import Any

import msgspec

from gateway.dev.engine.core import Job
from gateway.dev.engine.generation import Answer, Piece

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class Wire(abc.ABC):
    """One answer's serialiser; `ChatWire` and `TextWire` know the two shapes."""

    id_prefix = ""
    object_name = ""
    chunk_object_name = ""

    def __init__(self, model: str, request_id: str | None, *, continuous_usage: bool) -> None:
        self.id = f"{self.id_prefix}-{request_id or uuid.uuid4().hex}"
        self.model = model
        self.created_s = int(time.time())
        self._continuous_usage = continuous_usage
        self._head = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            _encode(self.id),
            self.chunk_object_name.encode(),
            self.created_s,
            _encode(model),
        )

    @abc.abstractmethod
    def opening(self, job: Job, index: int) -> bytes | None:
        """Return the event before the first token of a choice, `None` where there is none."""

    @abc.abstractmethod
    def chunk(self, job: Job, index: int, position: int) -> bytes | None:
        """Return the event of one token, `None` for a token that makes none or is beyond the answer's end."""

    @abc.abstractmethod
    def choice(self, answer: Answer, index: int) -> dict[str, Any]:
        """Return one choice of a whole answer."""

    def usage_chunk(self, job: Job) -> bytes:
        """Return the extra event with the usage and no choices."""
        return self._head + b'],"usage":' + _encode(usage(job)) + b"}\n\n"

    def whole(self, job: Job) -> bytes:
        """Return the body of an answer that is not streamed."""
        body = {
            "id": self.id,
            "object": self.object_name,
            "created": self.created_s,
            "model": self.model,
            "choices": [self.choice(answer, index) for index, answer in enumerate(job.answers)],
        }
        if not job.behaviour.no_usage:
            body["usage"] = usage(job)
        return _encode(body)

    def _event(self, choice: bytes, job: Job, completion_tokens: int) -> bytes:
        if not self._continuous_usage or job.behaviour.no_usage:
            return self._head + choice + b"]}\n\n"
        so_far = (job.prompt_tokens, job.prompt_tokens + completion_tokens, completion_tokens)
        counts = b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % so_far
        return self._head + choice + b'],"usage":' + counts + b"}\n\n"


class ChatWire(Wire):
    """`chat.completion` and `chat.completion.chunk`."""

    id_prefix, object_name, chunk_object_name = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, job: Job, index: int) -> bytes | None:
        """Return the event with the role."""
        choice = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}' % index
        return self._event(choice, job, 0)

    def chunk(self, job: Job, index: int, position: int) -> bytes | None:
        """Return the event of a token. The last one has the finish reason, whatever its kind."""
        answer = job.answers[index]
        if position >= len(answer.pieces):
            return None
        last = position == len(answer.pieces) - 1
        piece = answer.pieces[position]
        if piece.kind == "silent" and not last:
            return None
        ending = b"null}"
        if last:
            ending = b'"%b","stop_reason":%b}' % (answer.finish_reason.encode(), _encode(answer.stop_reason))
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b' % (index, _delta(answer, piece), ending)
        return self._event(choice, job, position + 1)

    def choice(self, answer: Answer, index: int) -> dict[str, Any]:
        """Return the choice with its message."""
        content: str | None = answer.text_of("content")
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(answer, at)}}
            for at, call in enumerate(answer.calls)
            if any(piece.kind == "tool_name" and piece.call == at for piece in answer.pieces)
        ]
        message = {
            "role": "assistant",
            "content": None if calls else content,
            "refusal": None,
            "tool_calls": calls,
            "reasoning_content": answer.text_of("reasoning") or None,
        }
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
        }


class TextWire(Wire):
    """`text_completion`, which names its chunks like the whole."""

    id_prefix, object_name, chunk_object_name = "cmpl", "text_completion", "text_completion"

    def opening(self, job: Job, index: int) -> bytes | None:
        """Return nothing: text completions have no role."""
        return None

    def chunk(self, job: Job, index: int, position: int) -> bytes | None:
        """Return the event of a token."""
        answer = job.answers[index]
        if position >= len(answer.pieces):
            return None
        reason, stop_reason = b"null", b"null"
        if position == len(answer.pieces) - 1:
            reason, stop_reason = b'"%b"' % answer.finish_reason.encode(), _encode(answer.stop_reason)
        values = (index, _encode(answer.pieces[position].text), reason, stop_reason)
        choice = b'{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b,"stop_reason":%b}' % values
        return self._event(choice, job, position + 1)

    def choice(self, answer: Answer, index: int) -> dict[str, Any]:
        """Return the choice with its text."""
        return {
            "index": index,
            "text": answer.text_of("content"),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "stop_reason": answer.stop_reason,
            "prompt_logprobs": None,
        }


def usage(job: Job) -> dict[str, Any]:
    """Return the usage of a job as it stands: prompt once, completions of all its choices."""
    return {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + job.generated_tokens,
        "completion_tokens": job.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
    }


def _delta(answer: Answer, piece: Piece) -> bytes:
    if piece.kind == "content":
        return b'{"content":' + _encode(piece.text) + b"}"
    if piece.kind == "reasoning":
        return b'{"reasoning_content":' + _encode(piece.text) + b"}"
    if piece.kind == "tool_arguments":
        return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (piece.call, _encode(piece.text))
    if piece.kind == "tool_name":
        head = (_encode(answer.calls[piece.call].id), piece.call, _encode(piece.text))
        return b'{"tool_calls":[{"id":%b,"type":"function","index":%d,"function":{"name":%b,"arguments":""}}]}' % head
    return b"{}" if answer.calls else b'{"content":""}'


def _arguments(answer: Answer, call: int) -> str:
    return "".join(piece.text for piece in answer.pieces if piece.kind == "tool_arguments" and piece.call == call)
