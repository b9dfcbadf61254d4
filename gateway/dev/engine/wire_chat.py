"""vLLM's bytes of /v1/chat/completions and /v1/completions: chunks of a stream and whole answers.

What is constant in the chunks of a stream (id, model, time) is serialised once, so that a chunk costs one short string
escape and a join.
"""

import abc
import time
import uuid
from collections.abc import Sequence
from typing import Any

from gateway.dev.engine.core import Job
from gateway.dev.engine.generation import Answer, Piece
from gateway.dev.engine.requests import GenerationRequest
from gateway.dev.engine.wire import Wire, arguments_of, calls_made, encode, told

DONE = b"data: [DONE]\n\n"


class CompletionsWire(Wire):
    """What the two older dialects share: choices in chunks, usage in a last one, `[DONE]`."""

    id_prefix = ""
    object_name = ""
    chunk_object_name = ""

    def __init__(self, request: GenerationRequest, request_id: str | None) -> None:
        self.id = f"{self.id_prefix}-{request_id or uuid.uuid4().hex}"
        self.model = request.model
        self.created_s = int(time.time())
        options = request.stream_options
        self._usage = options is not None and options.include_usage
        self._continuous_usage = options is not None and options.include_usage and options.continuous_usage_stats
        self._head = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            encode(self.id),
            self.chunk_object_name.encode(),
            self.created_s,
            encode(self.model),
        )

    @abc.abstractmethod
    def chunk(self, job: Job, index: int, position: int) -> bytes | None:
        """Return the event of one token, `None` for a token that makes none or is beyond the answer's end."""

    @abc.abstractmethod
    def choice(self, answer: Answer, index: int) -> dict[str, Any]:
        """Return one choice of a whole answer."""

    def opening(self, _job: Job) -> Sequence[bytes]:
        """Return nothing: only chat has roles to tell."""
        return ()

    def token(self, job: Job, position: int) -> Sequence[bytes]:
        """Return a chunk of each choice that has one."""
        made = [self.chunk(job, index, position) for index in range(len(job.answers))]
        chunks = [chunk for chunk in made if chunk is not None]
        if self._usage and job.behaviour.usage == "finish" and position == max(len(a.pieces) for a in job.answers) - 1:
            chunks[-1] = chunks[-1].removesuffix(b"}\n\n") + b',"usage":' + encode(usage(job)) + b"}\n\n"
        return chunks

    def ending(self, job: Job) -> Sequence[bytes]:
        """Return the extra event with the usage and no choices, where it was asked for, and the end mark."""
        if not self._usage or job.behaviour.usage in {"finish", "none"}:
            return (DONE,)
        return (self._head + b'],"usage":' + encode(usage(job)) + b"}\n\n", DONE)

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
        return encode(body)

    def _event(self, choice: bytes, job: Job, completion_tokens: int) -> bytes:
        if not self._continuous_usage or job.behaviour.usage in {"finish", "none"}:
            return self._head + choice + b"]}\n\n"
        so_far = (job.prompt_tokens, job.prompt_tokens + completion_tokens, completion_tokens)
        if job.behaviour.usage == "zero":
            so_far = (0, 0, 0)
        counts = b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % so_far
        return self._head + choice + b'],"usage":' + counts + b"}\n\n"


class ChatWire(CompletionsWire):
    """`chat.completion` and `chat.completion.chunk`."""

    id_prefix, object_name, chunk_object_name = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, job: Job) -> Sequence[bytes]:
        """Return an event with the role for each choice."""
        choice = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return [self._event(choice % index, job, 0) for index in range(len(job.answers))]

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
            ending = b'"%b","stop_reason":%b}' % (answer.finish_reason.encode(), encode(answer.stop_reason))
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b' % (index, _delta(answer, piece), ending)
        return self._event(choice, job, position + 1)

    def choice(self, answer: Answer, index: int) -> dict[str, Any]:
        """Return the choice with its message."""
        calls = []
        for at in calls_made(answer):
            function = {"name": answer.calls[at].name, "arguments": arguments_of(answer, at)}
            calls.append({"id": answer.calls[at].id, "type": "function", "function": function})
        message = {
            "role": "assistant",
            "content": None if calls else answer.text_of("content"),
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


class TextWire(CompletionsWire):
    """`text_completion`, which names its chunks like the whole."""

    id_prefix, object_name, chunk_object_name = "cmpl", "text_completion", "text_completion"

    def chunk(self, job: Job, index: int, position: int) -> bytes | None:
        """Return the event of a token."""
        answer = job.answers[index]
        if position >= len(answer.pieces):
            return None
        reason, stop_reason = b"null", b"null"
        if position == len(answer.pieces) - 1:
            reason, stop_reason = b'"%b"' % answer.finish_reason.encode(), encode(answer.stop_reason)
        values = (index, encode(answer.pieces[position].text), reason, stop_reason)
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
    used = {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + job.generated_tokens,
        "completion_tokens": job.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
    }
    return told(job, used)


def _delta(answer: Answer, piece: Piece) -> bytes:
    if piece.kind == "content":
        return b'{"content":' + encode(piece.text) + b"}"
    if piece.kind == "reasoning":
        return b'{"reasoning_content":' + encode(piece.text) + b"}"
    if piece.kind == "tool_arguments":
        return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (piece.call, encode(piece.text))
    if piece.kind == "tool_name":
        head = (encode(answer.calls[piece.call].id), piece.call, encode(piece.text))
        return b'{"tool_calls":[{"id":%b,"type":"function","index":%d,"function":{"name":%b,"arguments":""}}]}' % head
    return b"{}" if answer.calls else b'{"content":""}'
