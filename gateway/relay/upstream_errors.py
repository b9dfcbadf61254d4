"""What an engine's failure means for the caller: relayed when theirs to mend, retried elsewhere when it is not."""

from __future__ import annotations

import re

import msgspec

from gateway.errors import GatewayError, UpstreamBusy, UpstreamFailed, UpstreamRefused
from gateway.relay.wire import UNREADABLE, is_json

BODY_BYTES_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 2000
RETRY_AFTER_S_MAX = 3600.0
PARAM_CHARS_MAX = 200

# A code goes into the ledger and into logs: what does not look like one is none.
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

_BUSY = frozenset({429, 529})
_BUSY_TYPES = frozenset({"rate_limit_error", "overloaded_error"})
_OURS = {
    401: "the engine refuses the gateway's credentials",
    403: "the engine refuses the gateway's credentials",
    404: "the engine does not know the model, or not this endpoint",
    405: "the engine does not have this endpoint",
    408: "the engine gave up waiting for the request",
}


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


class _Detail(msgspec.Struct):
    """One of the mistakes that FastAPI lists."""

    msg: str | None = None


class _Body(msgspec.Struct):
    error: _Error | str | None = None
    message: str | None = None
    detail: str | list[_Detail] | None = None
    type: str | None = None
    code: str | int | None = None
    param: str | None = None


def from_response(status: int, headers: dict[bytes, bytes], body: bytes) -> GatewayError:
    """Return the error for a response that is no success.

    What the caller can mend (a bad field, a prompt that is too long) keeps the engine's status, code and words. What
    the gateway got wrong, and what is the engine's own failure, is UpstreamFailed; busy is UpstreamBusy.
    """
    if status in _BUSY:
        return UpstreamBusy("every engine for this model is busy", retry_after_s=_retry_after_s(headers))
    if status in _OURS:
        return UpstreamFailed(_OURS[status])
    if 400 <= status < 500:
        return refused(status, body)
    return UpstreamFailed(f"the engine failed with status {status}")


def from_event(data: bytes) -> GatewayError:
    """Return the error for what ended a stream (an `error` object, or no JSON), or for a body with status 200."""
    if not is_json(data):
        return UpstreamFailed("the engine sent an event that is no JSON")
    error = _read(data)
    code = error.code if isinstance(error.code, int) else None
    if (code is not None and 400 <= code < 500 and code not in _BUSY and code not in _OURS) or (
        error.type in ("invalid_request_error", "BadRequestError")
    ):
        return refused(code or 400, data)
    if code in _BUSY or error.type in _BUSY_TYPES:
        return UpstreamBusy("every engine for this model is busy")
    return UpstreamFailed("the engine reported a failure while it was answering")


def refused(status: int, body: bytes) -> UpstreamRefused:
    """Return the refusal that an engine's error body describes."""
    error = _read(body)
    message = (error.message or "the engine refused the request")[:MESSAGE_CHARS_MAX]
    code = error.code if isinstance(error.code, str) and _WORD.fullmatch(error.code) else None
    if code is None and _too_long(message):
        code = "context_length_exceeded"
    param = None if error.param is None else error.param[:PARAM_CHARS_MAX]
    return UpstreamRefused(message, status=status, code=code, kind="invalid_request_error", param=param)


def _too_long(message: str) -> bool:
    """Engines that send no code say it in words; clients compact on the code."""
    lowered = message.lower()
    return "maximum context length" in lowered or "context length exceeded" in lowered or "max_model_len" in lowered


def _read(body: bytes) -> _Error:
    try:
        read = msgspec.json.decode(body, type=_Body)
    except UNREADABLE:
        return _Error()
    if isinstance(read.error, _Error):
        return read.error
    detail = read.detail
    if isinstance(detail, list):
        detail = "; ".join(mistake.msg for mistake in detail if mistake.msg)
    message = read.error or read.message or detail
    return _Error(message=message, type=read.type, code=read.code, param=read.param)


def _retry_after_s(headers: dict[bytes, bytes]) -> float | None:
    for name, scale in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            value = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if 0 <= value < float("inf"):
            return min(value, RETRY_AFTER_S_MAX)
    return None
