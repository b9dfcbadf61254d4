"""Finds the half of a character that made a body no valid JSON. Only for the message: nothing that passes comes here.

JavaScript's strings are UTF-16: a client that cuts one inside an emoji writes one half of it, as an escape of its own.
"""

from __future__ import annotations

import re

ESCAPE_BYTES = 6
_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_POSITION = re.compile(r"\(byte (\d+)\)")


def lone_surrogate(body: bytes, reason: str) -> str | None:
    """Return the escape without its other half at which decoding `body` ended for `reason`, None when it was another.

    The decoder names the byte it stopped at, which is at most two escapes after the first half's beginning; without a
    name it is the end. Looking no further keeps a large body from costing time.
    """
    position = _POSITION.search(reason)
    end = len(body) if position is None else int(position[1])
    begin = max(end - 2 * ESCAPE_BYTES - 1, 0)
    for found in _HALF.finditer(body, begin, end + ESCAPE_BYTES):
        if _is_alone(body, found.start()):
            return found[0].decode()
    return None


def _is_alone(body: bytes, at: int) -> bool:
    if not _is_escape(body, at):
        return False
    if _HIGH.match(body, at):
        return _LOW.match(body, at + ESCAPE_BYTES) is None
    before = at - ESCAPE_BYTES
    return before < 0 or _HIGH.match(body, before) is None or not _is_escape(body, before)


def _is_escape(body: bytes, at: int) -> bool:
    """Whether the backslash at `at` is not itself escaped by the one before it."""
    before = body[:at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
