"""The requests that the load client sends: a whole HTTP request in a file, head and body, with a body of a set size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WORDS = "the sluice opens and water turns the wheel while tokens pass the gate one by one "


def chat_body(model: str, body_bytes: int, *, stream: bool) -> bytes:
    """Return a chat completion request as an SDK sends it, padded by its user message to `body_bytes` bytes.

    `body_bytes` must leave room for all but the message (about 250 bytes). A stream asks for usage, as agents do.
    """
    request: dict[str, object] = {
        "model": model,
        "messages": [{"role": "system", "content": "You are a careful assistant."}, {"role": "user", "content": ""}],
        "temperature": 0.2,
        "stream": stream,
    }
    if stream:
        request["stream_options"] = {"include_usage": True}
    room = body_bytes - len(json.dumps(request))
    if room < 0:
        raise ValueError(f"{body_bytes} bytes are too few for a request")
    request["messages"] = [
        {"role": "system", "content": "You are a careful assistant."},
        {"role": "user", "content": (WORDS * (room // len(WORDS) + 1))[:room]},
    ]
    return json.dumps(request).encode()


def http_request(body: bytes, key: str) -> bytes:
    """Return the bytes of a POST with this body, authorized with `key`."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        "accept: application/json\r\n"
        "user-agent: bench\r\n"
        f"authorization: Bearer {key}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def write_request(path: Path, model: str, key: str, body_bytes: int, *, stream: bool) -> Path:
    """Write a request for the load client, readable by its owner alone since it holds a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(http_request(chat_body(model, body_bytes, stream=stream), key))
    return path
