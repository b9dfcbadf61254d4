"""The endpoints of the data path as their clients see them: how to ask, what was said, and how an answer ends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.chat import chat, completion, message, response
from tests.support.http import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Dialect:
    """One endpoint. `events` below are the data of a stream's events, in order."""

    name: str
    path: str
    request: Callable[..., dict[str, Any]]
    """Makes the smallest request; further fields by name."""
    said: Callable[[dict[str, Any]], str]
    """What one event of a stream says: its part of the text, empty for most kinds."""
    error_keys: frozenset[str]
    """The keys of an error object."""

    def pieces(self, events: Sequence[str]) -> list[str]:
        """Return the parts of the text, without the empty ones."""
        said = [self.said(json.loads(event)) for event in events if event != DONE]
        return [text for text in said if text]

    def ended(self, events: Sequence[str]) -> bool:
        """Whether a stream came to the end that its clients wait for."""
        if not events:
            return False
        documents = [json.loads(event) for event in events if event != DONE]
        if self.name == "messages":
            return _types(documents)[-2:] == ["message_delta", "message_stop"]
        if self.name == "responses":
            return _types(documents)[-1:] == ["response.completed"]
        reasons = [choice["finish_reason"] for one in documents for choice in one.get("choices", ())]
        return events[-1] == DONE and [reason for reason in reasons if reason] != []

    def error(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the error object of a body or of a stream's last event, after asserting its shape."""
        error: dict[str, Any] = document["error"]
        assert error.keys() == self.error_keys
        if self.name == "messages":
            assert document["type"] == "error"
        return error


def _types(documents: Sequence[dict[str, Any]]) -> list[str]:
    return [one["type"] for one in documents]


def _said_in_choices(event: dict[str, Any]) -> str:
    return "".join(one.get("text") or one.get("delta", {}).get("content") or "" for one in event.get("choices", ()))


def _said_in_block(event: dict[str, Any]) -> str:
    return str(event["delta"]["text"]) if event.get("type") == "content_block_delta" else ""


def _said_in_item(event: dict[str, Any]) -> str:
    return str(event["delta"]) if event.get("type") == "response.output_text.delta" else ""


_ERROR_KEYS = frozenset({"message", "type", "param", "code"})

CHAT = Dialect("chat", "/v1/chat/completions", chat, _said_in_choices, _ERROR_KEYS)
COMPLETIONS = Dialect("completions", "/v1/completions", completion, _said_in_choices, _ERROR_KEYS)
MESSAGES = Dialect("messages", "/v1/messages", message, _said_in_block, _ERROR_KEYS)
RESPONSES = Dialect("responses", "/v1/responses", response, _said_in_item, _ERROR_KEYS)

DIALECTS = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)
