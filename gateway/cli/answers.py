"""What a gateway's answers mean to a command: documents, and problem documents as the errors that they tell of.

Whatever a server sends is shown on a terminal, so it is bounded and printable here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.errors import GatewayError, InvalidRequest, NotFound

DETAIL_CHARS_MAX = 2_000
_SPELLINGS: Final = {'"unchecked_model": true': "--unchecked-model"}
"""How the API names what the command has under another name."""


class Refused(GatewayError):
    """What the gateway said no to, with its own status and code."""

    def __init__(self, message: str, *, status: int, code: str, param: str | None, retry_after_s: float | None) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.status, self.code = status, code


class _Problem(msgspec.Struct):
    detail: str
    code: str
    param: str | None = None


def document_of(body: bytes, place: object) -> Any:
    """Return an answer's JSON document. Raises GatewayError when it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise GatewayError(f"{place} answers with something else than JSON: is it a gateway?") from None


def no_document(place: object) -> GatewayError:
    """Return the error of an answer that is JSON, and nothing that the API answers with."""
    return GatewayError(f"{place} answers with something else than was asked for: is it a gateway?")


def error_of(status: int, body: bytes, place: object, retry_after_s: float | None) -> GatewayError:
    """Return the error that an answer tells of, of the class that a command knows it by."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return GatewayError(f"{place} answers with status {status} and without a reason: is it a gateway?")
    detail = printable(problem.detail)
    for theirs, ours in _SPELLINGS.items():
        detail = detail.replace(theirs, ours)
    if problem.code == InvalidRequest.code:
        return InvalidRequest(detail, param=problem.param)
    if problem.code == NotFound.code:
        return NotFound(detail, param=problem.param)
    return Refused(detail, status=status, code=problem.code, param=problem.param, retry_after_s=retry_after_s)


def printable(text: str) -> str:
    """Return text of one bounded line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:DETAIL_CHARS_MAX])
