"""What the engine remembers of the last requests it received, so that a test can see what the gateway sent."""

from collections import deque
from typing import Any, Literal

import msgspec

RECORDS_KEPT = 64
"""Unless the command line says otherwise."""

# A longer body is not kept; the record says how long it was.
BODY_KEPT_BYTES_MAX = 1_048_576

Outcome = Literal["running", "finished", "failed", "aborted"]


class Record:
    """One request: what came, and how far its answer got. Token counts are those of this request alone."""

    __slots__ = (
        "body",
        "body_bytes",
        "generated_tokens",
        "headers",
        "method",
        "outcome",
        "path",
        "prompt_tokens",
        "status",
    )

    def __init__(self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body if len(body) <= BODY_KEPT_BYTES_MAX else None
        self.body_bytes = len(body)
        self.outcome: Outcome = "running"
        self.status: int | None = None
        self.prompt_tokens = 0
        self.generated_tokens = 0

    def shown(self) -> dict[str, Any]:
        """Return the record for `/sim/state`: header values by name (joined where repeated), the body as JSON."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return {
            "method": self.method,
            "path": self.path,
            "headers": headers,
            "body": _shown_body(self.body),
            "body_bytes": self.body_bytes,
            "outcome": self.outcome,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
        }


class Records:
    """The last `kept` requests, oldest first, and of their bodies the last ones that fit `bytes_max`."""

    def __init__(self, bytes_max: int, kept: int = RECORDS_KEPT) -> None:
        self._kept = kept
        self._ring: deque[Record] = deque()
        self._bytes_max = bytes_max
        self._bytes = 0

    def add(self, record: Record) -> None:
        """Remember a request; forget the oldest one, and the oldest bodies when all together are too long."""
        if len(self._ring) == self._kept:
            self._drop_body(self._ring.popleft())
        self._ring.append(record)
        self._bytes += len(record.body or b"")
        for old in self._ring:
            if self._bytes <= self._bytes_max:
                break
            self._drop_body(old)

    def _drop_body(self, record: Record) -> None:
        self._bytes -= len(record.body or b"")
        record.body = None

    def shown(self) -> list[dict[str, Any]]:
        """Return what `/sim/state` shows."""
        return [record.shown() for record in self._ring]


def _shown_body(body: bytes | None) -> Any:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
