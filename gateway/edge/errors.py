"""Turns errors into HTTP answers in the caller's dialect, and keeps clients from retrying what cannot succeed.

Some clients retry on the words of an error whatever its status ("monthly budget of $500 exceeded" was retried for the
500 in it). A permanent error whose body matches such words is sent with a fixed text instead; what it said goes into a
response header and the log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gateway.edge.dialects import OPENAI, ErrorText

if TYPE_CHECKING:
    from gateway.edge.dialects import Dialect
    from gateway.errors import GatewayError

DETAIL_CHARS_MAX = 500
DETAIL_HEADER = b"x-penstock-error-detail"

# What retrying clients look for in messages and bodies; wider than what any of them does, where that loses nothing.
RETRIED_WORDS = re.compile(
    r"429|500|502|503|504|524|529|rate.?limit|rate increased|too.many.requests|server.?error|overloaded"
    r"|at capacity|internal.?error|returned.error|terminated|exhausted|unavailable"
    r"|try (?:your request )?again|retry your request"
    r"|timed?.?out|econn|etimedout|enotfound|eai_again|getaddrinfo|socket (?:hang up|connection was closed)|bad gateway"
    r"|fetch failed|failed to fetch|network.?error|upstream connect|connection (?:error|reset|refused|lost)"
    r"|reset before headers",
    re.IGNORECASE | re.DOTALL,
)

_FIXED_TEXT = {
    400: "the request was refused as it stands",
    401: "the API key is not valid",
    402: "the budget is used up",
    403: "this is not allowed for the key",
    404: "not found",
    413: "the request is too large; shorten the conversation",
}

Header = tuple[bytes, bytes]


def render(error: GatewayError, dialect: Dialect = OPENAI) -> tuple[bytes, list[Header]]:
    """Return an error's JSON body and its own headers (content type, retry hints, details kept out of the body)."""
    headers: list[Header] = [(b"content-type", b"application/json"), *error.headers]
    said = _text_of(error)
    if error.permanent:
        headers.append((b"x-should-retry", b"false"))
        if _invites_retries(said):
            headers.append((DETAIL_HEADER, _header_safe(f"{error.code}: {error.message}")))
            said = _fixed(said, error.plain, "; the reason is in the response header x-penstock-error-detail")
    elif error.retry_after_s is not None:
        milliseconds = max(round(error.retry_after_s * 1000), 1)
        headers.append((b"retry-after", b"%d" % max(-(-milliseconds // 1000), 1)))
        headers.append((b"retry-after-ms", b"%d" % milliseconds))
    return dialect.body(said), headers


def error_event(error: GatewayError, dialect: Dialect = OPENAI) -> bytes:
    """Return an error as the last event of a stream, typed by permanence: clients retry `server_error` only."""
    said = _text_of(error)
    if not error.permanent:
        said = said._replace(kind="server_error", param=None)
    elif _invites_retries(said):
        said = _fixed(said, error.plain, "")
    return dialect.event(said)


def _text_of(error: GatewayError) -> ErrorText:
    return ErrorText(error.status, error.message, error.kind, error.code, error.param)


def _invites_retries(said: ErrorText) -> bool:
    return any(map(_is_retried, (said.message, said.kind, said.code, said.param)))


def _is_retried(text: str | None) -> bool:
    """Whether a client finds a word to retry on: in a text as it is, or as it stands in JSON."""
    return text is not None and bool(
        RETRIED_WORDS.search(text) or RETRIED_WORDS.search(msgspec.json.encode(text).decode())
    )


def _fixed(said: ErrorText, plain: str | None, where: str) -> ErrorText:
    return ErrorText(
        status=said.status,
        message=(plain or _FIXED_TEXT.get(said.status, _FIXED_TEXT[400])) + where,
        kind="invalid_request_error" if _is_retried(said.kind) else said.kind,
        code="refused" if _is_retried(said.code) else said.code,
        param=None if _is_retried(said.param) else said.param,
    )


def _header_safe(text: str) -> bytes:
    """One line of printable ASCII: a message may quote what a client or an engine sent."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:DETAIL_CHARS_MAX]).encode("ascii")
