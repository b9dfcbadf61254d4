"""How errors and keep-alives look to three kinds of clients: OpenAI's, Anthropic's, and those of OpenAI's Responses.

All have a type, a message, and Penstock's stable code. Clients of each kind decide by other parts of it whether to
retry and whether to shorten the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec


class ErrorText(NamedTuple):
    """What an error says to the client; `kind` is OpenAI's `error.type`."""

    status: int
    message: str
    kind: str
    code: str
    param: str | None


class Dialect(Protocol):
    """One way of saying it."""

    @property
    def keep_alive(self) -> bytes:
        """What is sent while a stream waits for its first content."""
        ...

    @property
    def request_id_headers(self) -> tuple[bytes, ...]:
        """Where clients look for the id of their request."""
        ...

    def body(self, error: ErrorText) -> bytes:
        """Return an error's body as JSON."""
        ...

    def event(self, error: ErrorText) -> bytes:
        """Return an error as the last event of a stream."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """`{"error": {message, type, param, code}}`."""

    keep_alive: bytes = b": keep-alive\n\n"
    request_id_headers: tuple[bytes, ...] = (b"x-request-id",)

    def body(self, error: ErrorText) -> bytes:
        """See `Dialect.body`."""
        return msgspec.json.encode({"error": _openai_error(error)})

    def event(self, error: ErrorText) -> bytes:
        """See `Dialect.event`."""
        return b"data: %b\n\n" % self.body(error)


@dataclass(frozen=True, slots=True)
class ResponsesDialect(OpenAIDialect):
    """OpenAI's, but in a stream an `error` event, flat as documented and nested as OpenAI's SDKs read it."""

    def event(self, error: ErrorText) -> bytes:
        """See `Dialect.event`."""
        said = _openai_error(error)
        flat = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode({**flat, "error": said})


@dataclass(frozen=True, slots=True)
class AnthropicDialect:
    """`{"type": "error", "error": {type, message, code, param}}`, and `ping` events."""

    keep_alive: bytes = b'event: ping\ndata: {"type":"ping"}\n\n'
    request_id_headers: tuple[bytes, ...] = (b"x-request-id", b"request-id")

    def body(self, error: ErrorText) -> bytes:
        """See `Dialect.body`."""
        message = error.message
        if error.code == "context_length_exceeded" and not message.startswith(_TOO_LONG):
            message = f"{_TOO_LONG}: {message}"
        kind = _ANTHROPIC_KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        said = {"type": kind, "message": message, "code": error.code, "param": error.param}
        return msgspec.json.encode({"type": "error", "error": said})

    def event(self, error: ErrorText) -> bytes:
        """See `Dialect.event`."""
        return b"event: error\ndata: %b\n\n" % self.body(error)


# Agents that speak Anthropic's dialect find in these words that they must shorten the conversation.
_TOO_LONG = "prompt is too long"

_ANTHROPIC_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

OPENAI = OpenAIDialect()
RESPONSES = ResponsesDialect()
ANTHROPIC = AnthropicDialect()


def _openai_error(error: ErrorText) -> dict[str, str | None]:
    return {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
