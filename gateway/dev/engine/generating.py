"""POST /v1/chat/completions and /v1/completions, top to bottom: read, decide what to say, say it.

Everything that can be refused is refused before the first byte. A stream's head goes out at once, its first event
with the first token. `n` choices advance together, a token each.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dev.engine.behaviour import Behaviour, Overrides
from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.errors import EngineReset, bad_request, context_too_long
from gateway.dev.engine.generation import Answer, Wanted, answer, seed_of
from gateway.dev.engine.http import EVENT_STREAM, Send, respond
from gateway.dev.engine.prompt import render_chat
from gateway.dev.engine.records import Record
from gateway.dev.engine.requests import (
    CHOICES_MAX,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    decode,
    prompts_of,
)
from gateway.dev.engine.tokenizer import TOKEN_BYTES, bytes_of_ids, count_tokens
from gateway.dev.engine.tools import ToolCall, calls_for
from gateway.dev.engine.wire import Wire
from gateway.dev.engine.wire_chat import ChatWire, TextWire


@dataclass(frozen=True, slots=True)
class Incoming:
    """What came: the body, overrides in headers, the caller's request id, and the record of it all."""

    body: bytes
    header_overrides: Overrides | None
    request_id: str | None
    record: Record


async def chat_completions(engine: Engine, incoming: Incoming, send: Send) -> None:
    """Answer a chat completion. Raises EngineError before the answer starts, EngineReset where it is to be cut."""
    request = decode(incoming.body, ChatRequest)
    await converse(engine, incoming, request, ChatWire(request, incoming.request_id), send)


async def converse(
    engine: Engine, incoming: Incoming, request: ChatRequest, wire: Wire, send: Send, *, param: str = "messages"
) -> None:
    """Answer a conversation in the dialect of `wire`; `param` names the field that held it. Raises as above."""
    behaviour = _admitted(engine, request, incoming)
    prompt = render_chat(request.messages, request.tools)
    asked = request.max_completion_tokens or request.max_tokens
    bound = _output_bound(engine, count_tokens(prompt), asked, param)
    calls = [calls_for(request) for _ in range(request.n or 1)]
    answers = [
        answer(
            _wanted(request, behaviour, prompt, bound, index, reasoning_tokens=behaviour.reasoning_tokens, calls=one)
        )
        for index, one in enumerate(calls)
    ]
    job = Job(prompt, answers, behaviour, incoming.record, bool(request.stream), request.cache_salt, request.model)
    await _answer(engine, job, wire, send)


async def completions(engine: Engine, incoming: Incoming, send: Send) -> None:
    """Answer a text completion; several prompts make several choices, and count as one prompt of their joint length."""
    request = decode(incoming.body, CompletionRequest)
    behaviour = _admitted(engine, request, incoming)
    if request.echo:
        raise bad_request("echo is not simulated", param="echo")
    given = prompts_of(request.prompt)
    if len(given) * (request.n or 1) > CHOICES_MAX:
        raise bad_request(f"at most {CHOICES_MAX} choices over all prompts", param="prompt")
    answers: list[Answer] = []
    prompts: list[bytes] = []
    for item in given:
        prompt = item.encode() if isinstance(item, str) else bytes_of_ids(item)
        bound = _output_bound(engine, count_tokens(prompt), request.max_tokens, "prompt")
        answers.extend(answer(_wanted(request, behaviour, prompt, bound, index)) for index in range(request.n or 1))
        prompts.append(prompt)
    # All but the last are padded to whole tokens, so that the joint length counts each prompt's own.
    joint = b"".join([*(one.ljust(count_tokens(one) * TOKEN_BYTES, b"\0") for one in prompts[:-1]), prompts[-1]])
    job = Job(joint, answers, behaviour, incoming.record, bool(request.stream), request.cache_salt, request.model)
    await _answer(engine, job, TextWire(request, incoming.request_id), send)


def _admitted(engine: Engine, request: GenerationRequest, incoming: Incoming) -> Behaviour:
    """Return how to answer. Raises EngineError as `Engine.admit` does."""
    behaviour = engine.behaviour_for(request.sim, incoming.header_overrides)
    engine.admit(request.model, behaviour)
    return behaviour


def _output_bound(engine: Engine, prompt_tokens: int, asked: int | None, param: str) -> int:
    """Return the most tokens that one choice may have. Raises EngineError 400 when the context cannot hold it."""
    limit = engine.options.context_tokens
    head = f"This model's maximum context length is {limit} tokens."
    if prompt_tokens >= limit:
        raise context_too_long(
            f"{head} However, your request has {prompt_tokens} input tokens. Please reduce the length of the messages.",
            param=param,
        )
    if asked is not None and prompt_tokens + asked > limit:
        raise context_too_long(
            f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. {head}"
            f" Your request has {prompt_tokens} input tokens.",
            param="max_tokens",
        )
    return asked if asked is not None else limit - prompt_tokens


def _wanted(
    request: GenerationRequest,
    behaviour: Behaviour,
    prompt: bytes,
    max_tokens: int,
    index: int,
    *,
    reasoning_tokens: int = 0,
    calls: Sequence[ToolCall] = (),
) -> Wanted:
    return Wanted(
        seed=seed_of(request.seed, prompt, index),
        max_tokens=max_tokens,
        output_tokens=behaviour.output_tokens,
        reasoning_tokens=reasoning_tokens,
        text=behaviour.text,
        stops=request.stops(),
        include_stop=request.include_stop_str_in_output,
        ignore_eos=request.ignore_eos,
        calls=calls,
    )


async def _answer(engine: Engine, job: Job, wire: Wire, send: Send) -> None:
    if job.streamed:
        await _stream(engine, job, wire, send)
    else:
        async with contextlib.aclosing(engine.generate(job)) as tokens:
            async for _ in tokens:
                pass
        if job.behaviour.abort_after_chunks is not None:
            raise EngineReset
        job.record.status = 200
        await respond(send, 200, wire.whole(job))
    engine.counters.finished_reasons["length" if job.answers[0].finish_reason == "length" else "stop"] += 1


async def _stream(engine: Engine, job: Job, wire: Wire, send: Send) -> None:
    events = _Events(send, job.behaviour.abort_after_chunks)
    job.record.status = 200
    await send({"type": "http.response.start", "status": 200, "headers": [EVENT_STREAM]})
    await events.send(wire.greeting(job))
    async with contextlib.aclosing(engine.generate(job)) as tokens:
        async for due in tokens:
            for position in due:
                if position == 0:
                    await events.send(wire.opening(job))
                await events.send(wire.token(job, position))
    await events.send(wire.ending(job))
    await send({"type": "http.response.body", "body": b""})


class _Events:
    """Sends the events of one stream and raises EngineReset after as many as were ordered."""

    def __init__(self, send: Send, reset_after: int | None) -> None:
        self._send = send
        self._left = reset_after

    async def send(self, events: Sequence[bytes]) -> None:
        """Send events, each in a write of its own; a token may have none."""
        for event in events:
            if self._left == 0:
                raise EngineReset
            await self._send({"type": "http.response.body", "body": event, "more_body": True})
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    raise EngineReset
