"""POST /v1/chat/completions and /v1/completions, top to bottom: read, decide what to say, say it.

Everything that can be refused is refused before the first byte. A stream's head goes out at once, its first event
with the first token. `n` choices advance together, a token each.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dev.engine.behaviour import Behaviour, Overrides
from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.errors import bad_request, context_too_long
from gateway.dev.engine.faults import Sender, admitted
from gateway.dev.engine.generation import Answer, Wanted, answer, seed_of
from gateway.dev.engine.http import Send
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
    """Answer a chat completion. Raises EngineError before the answer starts, Broken where it is to be cut."""
    request = decode(incoming.body, ChatRequest)
    await converse(engine, incoming, request, ChatWire(request, incoming.request_id), send)


async def converse(
    engine: Engine, incoming: Incoming, request: ChatRequest, wire: Wire, send: Send, *, param: str = "messages"
) -> None:
    """Answer a conversation in the dialect of `wire`; `param` names the field that held it. Raises as above."""
    behaviour = await admitted(engine, request.model, request.sim, incoming.header_overrides)
    if not request.messages:
        raise bad_request("there is nothing in it to answer", param=param)
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
    behaviour = await admitted(engine, request.model, request.sim, incoming.header_overrides)
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
    sender = Sender(send, job.behaviour)
    if job.streamed:
        await _stream(engine, job, wire, sender)
    else:
        async with contextlib.aclosing(engine.generate(job)) as tokens:
            async for _ in tokens:
                pass
        job.record.status = 200
        await sender.whole(wire.whole(job))
    engine.counters.finished_reasons["length" if job.answers[0].finish_reason == "length" else "stop"] += 1


async def _stream(engine: Engine, job: Job, wire: Wire, sender: Sender) -> None:
    job.record.status = 200
    await sender.head()
    await sender.events(wire.greeting(job))
    async with contextlib.aclosing(engine.generate(job)) as tokens:
        async for due in tokens:
            for position in due:
                if position == 0:
                    await sender.events(wire.opening(job))
                await sender.events(wire.token(job, position))
    await sender.end(wire.ending(job))
