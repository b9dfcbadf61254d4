"""What a request says of its sender: its token and its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import InvalidKey

if TYPE_CHECKING:
    from gateway.edge.asgi import Scope

TOKEN_CHARS_MAX = 512


def token_of(headers: dict[bytes, bytes]) -> str:
    """Return the token of `Authorization: Bearer` or `x-api-key`. Raises InvalidKey when there is none."""
    value = headers.get(b"authorization")
    if value is not None:
        scheme, _, token = value.partition(b" ")
        if scheme.lower() == b"bearer":
            return _token(token.strip())
    value = headers.get(b"x-api-key")
    if value is not None:
        return _token(value.strip())
    raise InvalidKey("no API key; send it as 'Authorization: Bearer sk-pst-…'")


def address_of(scope: Scope) -> str:
    """Return the peer's address."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _token(value: bytes) -> str:
    if not value or len(value) > TOKEN_CHARS_MAX:
        raise InvalidKey("the API key is not valid")
    return value.decode("latin-1")
