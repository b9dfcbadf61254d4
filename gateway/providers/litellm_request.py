"""An OpenAI request as a call of litellm: which function, and which arguments.

litellm's functions take their own settings (addresses, credentials, retries, mock answers) among the request's fields,
so only what OpenAI's API defines is let through, by name. The rest is refused: dropped silently, it would be an answer
to another question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import InvalidRequest

_SAMPLING = frozenset(
    {"model", "n", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "user"}
    | {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs"}
)
_CHAT = frozenset(
    {"messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"}
    | {"response_format", "reasoning_effort", "thinking", "verbosity", "top_logprobs", "modalities", "audio"}
    | {"prediction", "web_search_options", "service_tier", "safety_identifier", "store"}
    | {"prompt_cache_key", "prompt_cache_retention"}
)
_TEXT = frozenset({"prompt", "suffix", "echo", "best_of"})
_FIELDS = {
    "/v1/chat/completions": ("acompletion", _SAMPLING | _CHAT),
    "/v1/completions": ("atext_completion", _SAMPLING | _TEXT),
    "/v1/embeddings": ("aembedding", frozenset({"model", "input", "dimensions", "encoding_format", "user"})),
}
# Labels for the provider's own bookkeeping. litellm reads settings of its own from the field.
_UNUSED = frozenset({"metadata"})


@dataclass(frozen=True, slots=True)
class TranslatedCall:
    """One call of litellm. `streamed`: the client wants events; `whole`: litellm is asked for a whole answer."""

    function: str
    arguments: dict[str, Any]
    streamed: bool
    whole: bool


def translate(path: str, body: bytes) -> TranslatedCall:
    """Return the call for a request to `path` whose JSON body, an object, is `body`.

    A stream of several choices, or of a text completion, is asked for whole: litellm's streams of these do not tell an
    answer that has ended from one that was cut.

    Raises:
        InvalidRequest: no such path, or a field that litellm cannot be given; it names the field.
    """
    if path not in _FIELDS:
        raise InvalidRequest("this model has no such endpoint")
    function, known = _FIELDS[path]
    fields: dict[str, Any] = msgspec.json.decode(body)
    arguments = {name: value for name, value in fields.items() if value is not None and name not in _UNUSED}
    for name in arguments.keys() - known:
        raise InvalidRequest(f"'{name[:100]}' is not available for this model", param=name[:100])
    _check(arguments)
    streamed = bool(arguments.pop("stream", False))
    arguments.pop("stream_options", None)
    whole = not streamed or function != "acompletion" or arguments.get("n", 1) != 1
    if not whole:
        arguments |= {"stream": True, "stream_options": {"include_usage": True}}
    return TranslatedCall(function, arguments, streamed=streamed, whole=whole)


def _check(arguments: dict[str, Any]) -> None:
    """Refuse the shapes that litellm would stumble over, or would take for something else."""
    messages = arguments.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest("'messages' must be a list of messages", param="messages")
    # It makes one conversation of several prompts.
    if not isinstance(arguments.get("prompt", ""), str):
        raise InvalidRequest("'prompt' must be one string for this model", param="prompt")
