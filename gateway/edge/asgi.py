"""The few ASGI types and answers that the data path's endpoints share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.edge.dialects import OPENAI
from gateway.edge.errors import Header, render

if TYPE_CHECKING:
    from gateway.edge.dialects import Dialect
    from gateway.errors import GatewayError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


async def send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a whole answer; `headers` tell its type and length."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    """Send a whole JSON answer."""
    own = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    await send_whole(send, status, [*headers, *own], body)


async def send_error(send: Send, error: GatewayError, headers: list[Header], dialect: Dialect = OPENAI) -> None:
    """Send an error that no byte went before."""
    body, own = render(error, dialect)
    await send_whole(send, error.status, [*own, *headers, (b"content-length", b"%d" % len(body))], body)
