"""One request as it was read: the few fields that stages need, and the body as the pieces it came in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.config import ModelConfig


class Endpoint(StrEnum):
    """What is asked of the engine; the value is how the ledger and the metrics name it."""

    CHAT_COMPLETIONS = "chat.completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages.count_tokens"
    RESPONSES = "responses"

    @property
    def upstream_path(self) -> str:
        """The path on an engine that has this endpoint."""
        return _UPSTREAM_PATHS[self]

    @property
    def prompt_field(self) -> str:
        """The field of the body that holds the prompt."""
        return _PROMPT_FIELDS[self]

    @property
    def generates(self) -> bool:
        """Whether an answer is made of generated tokens, and may be streamed."""
        return self is not Endpoint.EMBEDDINGS and self is not Endpoint.COUNT_TOKENS


_UPSTREAM_PATHS = {
    Endpoint.CHAT_COMPLETIONS: "/v1/chat/completions",
    Endpoint.COMPLETIONS: "/v1/completions",
    Endpoint.EMBEDDINGS: "/v1/embeddings",
    Endpoint.MESSAGES: "/v1/messages",
    Endpoint.COUNT_TOKENS: "/v1/messages/count_tokens",
    Endpoint.RESPONSES: "/v1/responses",
}
_PROMPT_FIELDS = {
    Endpoint.CHAT_COMPLETIONS: "messages",
    Endpoint.COMPLETIONS: "prompt",
    Endpoint.EMBEDDINGS: "input",
    Endpoint.MESSAGES: "messages",
    Endpoint.COUNT_TOKENS: "messages",
    Endpoint.RESPONSES: "input",
}

OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
"""What bounds an answer, at one endpoint or another: some engines heed all of them at each."""

Fields = dict[str, msgspec.Raw]
"""A JSON object decoded at its top level only: each value is the bytes it came in."""


class InlineMedia(NamedTuple):
    """Images, sounds and files in a body itself: their size in it, which says nothing of tokens, and how many."""

    size_bytes: int
    items: int


NO_MEDIA = InlineMedia(0, 0)


@dataclass(slots=True)
class Call:
    """An authenticated, well-formed request.

    `requested_model` is the name that the client used and gets back; `model` is what it resolved to. `fields` already
    holds what the gateway overwrites for every engine; the upstream's model name is set per attempt. Times are seconds
    of the monotonic clock.
    """

    event_id: UUID
    endpoint: Endpoint
    requested_model: str
    model: ModelConfig
    fields: Fields
    body: bytes
    stream: bool
    usage_wanted: bool
    output_max: int | None
    choices: int
    session: str | None
    started_s: float
    media: InlineMedia = NO_MEDIA

    @property
    def bounded(self) -> bool:
        """Whether the body itself says how long an answer may be, by the client's wish or the operator's."""
        fields = self.fields
        return any(name in fields for name in OUTPUT_FIELDS)

    def upstream_body(self, upstream_model: str) -> bytes:
        """Return the body for an engine that calls the model `upstream_model`; values are copied, never re-encoded."""
        self.fields["model"] = msgspec.Raw(msgspec.json.encode(upstream_model))
        return msgspec.json.encode(self.fields)
