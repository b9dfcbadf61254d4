"""Streams of `/v1/messages` and `/v1/responses` as engines send them, event by event."""

from __future__ import annotations

import json
from typing import Any

MODEL = "engine-model"


def typed(document: dict[str, Any]) -> bytes:
    """Return an event that has its document's type as its name."""
    return f"event: {document['type']}\ndata: {json.dumps(document)}\n\n".encode()


def message_stream(
    *texts: str, stop_reason: str | None = "end_turn", usage: dict[str, int] | None = None
) -> list[bytes]:
    """Return a message with one block of these texts; without a stop reason it breaks off after them."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": MODEL}
    started = {"type": "message_start", "message": message | {"usage": {"input_tokens": 30, "output_tokens": 1}}}
    events: list[dict[str, Any]] = [
        started,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    if stop_reason is not None:
        ended = {"stop_reason": stop_reason, "stop_sequence": None}
        events.append({"type": "content_block_stop", "index": 0})
        events.append({"type": "message_delta", "delta": ended, "usage": usage or {"output_tokens": len(texts) + 1}})
        events.append({"type": "message_stop"})
    return [typed(event) for event in events]


def response_stream(*texts: str, end: str | None = "completed", **of_response: Any) -> list[bytes]:
    """Return a response with one message of these texts; `end` None: it breaks off after them."""
    response: dict[str, Any] = {"id": "resp_1", "object": "response", "model": MODEL, "output": [], "error": None}
    begun = response | {"status": "in_progress", "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    events += [{"type": "response.output_text.delta", "delta": text, "item_id": "msg_1"} for text in texts]
    if end is not None:
        usage = {
            "input_tokens": 30,
            "input_tokens_details": {"cached_tokens": 16},
            "output_tokens": len(texts) + 1,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": 31 + len(texts),
        }
        ended = response | {"status": end, "usage": usage} | of_response
        events.append({"type": f"response.{end}", "response": ended})
    return [typed(event | {"sequence_number": number}) for number, event in enumerate(events)]
