"""How much a request asks to be generated: how many completions, and how long each may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.domain.call import OUTPUT_FIELDS, Endpoint
from gateway.domain.config import EngineKind
from gateway.edge.fields import read_integer
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.domain.call import Call, Fields
    from gateway.domain.config import ModelConfig
    from gateway.domain.principal import OutputBound

CHOICES_MAX = 128
OUTPUT_TOKENS_MAX = 10_000_000

_OUTPUT_FIELDS = {
    Endpoint.CHAT_COMPLETIONS: ("max_completion_tokens", "max_tokens"),
    Endpoint.COMPLETIONS: ("max_completion_tokens", "max_tokens"),
    Endpoint.MESSAGES: ("max_tokens",),
    Endpoint.RESPONSES: ("max_output_tokens",),
}

_OLDER_FIELD_ALONE = frozenset({EngineKind.TGI, EngineKind.OLLAMA, EngineKind.LLAMACPP})
"""Engines that may not know `max_completion_tokens`: what bounds their answers is `max_tokens`."""

_BRIEF = frozenset({EngineKind.VLLM, EngineKind.SGLANG, EngineKind.OPENAI})
_BRIEF_TOKENS = 16
"""What these engines generate of a text completion that asks for no length, as in OpenAI's interface."""

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def choices_of(fields: Fields, endpoint: Endpoint) -> int:
    """Return how many completions are asked for: `n` of each prompt, where a text completion may have several.

    Raises InvalidRequest for more than CHOICES_MAX.
    """
    choices = read_integer(fields, "n", 1, CHOICES_MAX) or 1
    if endpoint is not Endpoint.COMPLETIONS:
        return choices
    choices *= _prompts(fields["prompt"])
    if choices > CHOICES_MAX:
        raise InvalidRequest(f"at most {CHOICES_MAX} completions may be asked for, 'n' of each prompt", param="prompt")
    return choices


def _prompts(raw: msgspec.Raw) -> int:
    """Return how many prompts a `prompt` is: a text is one, and so is a list of token ids."""
    begin = bytes(memoryview(raw)[:64])
    if begin[:1] != b"[" or begin[1:].lstrip()[:1].isdigit():
        return 1
    try:
        return max(len(_decode_items(raw)), 1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("'prompt' must be a string or a list", param="prompt") from None


def cap_output(fields: Fields, model: ModelConfig, endpoint: Endpoint) -> int | None:
    """Return the bound on one completion: the client's, cut to the model's where that has one.

    Bounds of other endpoints are cut, too, and in place. Raises InvalidRequest for one that is no number.
    """
    names = _OUTPUT_FIELDS[endpoint]
    asked: int | None = None
    for name in OUTPUT_FIELDS:
        value = read_integer(fields, name, 0, OUTPUT_TOKENS_MAX)
        if value is not None and model.output_tokens is not None and value > model.output_tokens:
            value = model.output_tokens
            fields[name] = msgspec.Raw(b"%d" % value)
        if value is not None and name in names:
            asked = value if asked is None else min(asked, value)
    return asked if asked is not None else model.output_tokens


def hold_to(bounds: Iterable[OutputBound], call: Call, kinds: Collection[EngineKind]) -> None:
    """Hold a call, in place, to the tightest of its caller's bounds on one completion, whatever it asks for.

    A larger wish is cut, in every spelling. Where there is none that its engines (of `kinds`) heed, the bound goes into
    the field that they do; but for one that the model's context keeps anyway, which an engine would refuse beside any
    prompt.
    """
    tokens = min((bound.tokens for bound in bounds if bound.model in (None, call.model.name)), default=None)
    if tokens is None or not call.endpoint.generates:
        return
    fields, model = call.fields, call.model
    for name in OUTPUT_FIELDS:
        value = read_integer(fields, name, 0, OUTPUT_TOKENS_MAX)
        if value is not None and value > tokens:
            fields[name] = msgspec.Raw(b"%d" % tokens)
    call.output_max = tokens if call.output_max is None else min(call.output_max, tokens)
    heeded = _heeded(call.endpoint, kinds)
    if any(read_integer(fields, name, 0, OUTPUT_TOKENS_MAX) is not None for name in heeded):
        return
    if model.context_tokens is not None and call.output_max >= model.context_tokens:
        return
    if call.endpoint is Endpoint.COMPLETIONS and _BRIEF.issuperset(kinds):
        call.output_max = min(call.output_max, _BRIEF_TOKENS)
    fields[heeded[-1]] = msgspec.Raw(b"%d" % call.output_max)


def _heeded(endpoint: Endpoint, kinds: Collection[EngineKind]) -> tuple[str, ...]:
    """Return the fields that bound an answer at all engines of these kinds; the last is understood by each."""
    names = _OUTPUT_FIELDS[endpoint]
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        if not _OLDER_FIELD_ALONE.isdisjoint(kinds):
            return ("max_tokens",)
        if set(kinds) == {EngineKind.OPENAI}:  # its reasoning models refuse the older field
            return ("max_tokens", "max_completion_tokens")
    elif endpoint is Endpoint.COMPLETIONS:
        return ("max_tokens",)
    return names
