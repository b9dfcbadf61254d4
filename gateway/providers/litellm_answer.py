"""litellm's answers as the bytes of an OpenAI-compatible engine: JSON, or server-sent events.

litellm fills in what a provider did not say: a `finish_reason` for a stream that was cut, token counts of its own. What
is made up is told from what was said, so that a cut is a failure and a count of the gateway's own is an estimate.
"""

from __future__ import annotations

from typing import Any

import msgspec

DONE_EVENT = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder(enc_hook=str)


def whole_json(answer: Any) -> bytes:
    """Return the JSON of a whole answer of litellm's."""
    return _encoder.encode(_whole(answer))


def whole_events(answer: Any) -> bytes:
    """Return a whole answer as a complete stream of one chunk, so that clients who asked for events get some."""
    fields = _whole(answer)
    usage = fields.pop("usage", None)
    if fields.get("object") == "chat.completion":
        fields["object"] = "chat.completion.chunk"
        for choice in fields.get("choices", ()):
            choice["delta"] = delta = choice.pop("message", {})
            for index, call in enumerate(delta.get("tool_calls") or ()):
                call["index"] = index
    events = [_event(fields)]
    if usage is not None:
        events.append(_event(fields | {"choices": [], "usage": usage}))
    return b"".join((*events, DONE_EVENT))


def chunk_event(chunk: Any) -> bytes:
    """Return the event of one chunk of a stream."""
    fields = _dumped(chunk)
    for choice in fields.get("choices", ()):
        choice.setdefault("finish_reason", None)
    return _event(fields)


def usage_event(chunk: Any, stream: Any) -> bytes:
    """Return the event of the chunk that ends a stream with its usage; b"" when the provider did not report any."""
    said = [usage for said in getattr(stream, "chunks", ()) if (usage := getattr(said, "usage", None)) is not None]
    if not said:
        return b""
    fields = _dumped(chunk)
    if not any(getattr(usage, "completion_tokens_details", None) for usage in said):
        fields["usage"].pop("completion_tokens_details", None)
    return _event(fields | {"choices": []})


def is_finished(chunk: Any) -> bool:
    """Whether the chunk says that its choice has ended."""
    return any(choice.finish_reason is not None for choice in chunk.choices)


def has_usage(chunk: Any) -> bool:
    """Whether the chunk carries a usage: litellm sends one, as the last chunk."""
    return getattr(chunk, "usage", None) is not None


def was_cut(stream: Any) -> bool:
    """Whether a stream that says it has finished was ended by litellm, not by its provider."""
    reasons = [getattr(stream, name, "") for name in ("received_finish_reason", "intermittent_finish_reason")]
    return all(reason is None for reason in reasons)


def _whole(answer: Any) -> dict[str, Any]:
    fields = _dumped(answer)
    for choice in fields.get("choices", ()):
        message = choice.get("message")
        if message is not None:
            message.setdefault("content", None)
            for call in message.get("tool_calls", ()):
                call.pop("index", None)  # Anthropic's blocks are counted; in whole answers, OpenAI's calls are not
    usage = fields.get("usage") or {}
    if not usage.get("prompt_tokens") and not usage.get("completion_tokens"):
        fields.pop("usage", None)  # zeros where the provider said nothing; no prompt is empty
    return fields


def _dumped(answer: Any) -> dict[str, Any]:
    """Return a pydantic model's fields that are set, without warnings for what is not of its declared type."""
    fields: dict[str, Any] = answer.model_dump(exclude_none=True, warnings=False)
    return fields


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encoder.encode(fields)
