"""Without keys (`auth: none`) the gateway is for programs of its own machine: not for others, and not for web pages.

A page that somebody looks at runs on their machine and reaches loopback: by an address of its own site that leads there
(so a request's `Host` must be a name of this machine), or outright (so its `Origin` must be one, too).
"""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.surface import Handler
    from gateway.settings import Settings

SHOWN_CHARS_MAX = 100


def require_loopback(settings: Settings) -> None:
    """Raise ConfigError where others could reach a gateway that asks nobody for a key, unless that was asked for."""
    if settings.auth == "none" and not settings.auth_none_anywhere and not is_loopback(settings.host):
        raise ConfigError(
            f"auth: none lets in whoever reaches the port, and others reach {settings.host}: listen on 127.0.0.1,"
            " or set auth to keys; where something else decides who comes in, set auth_none_anywhere to true"
        )


def is_loopback(host: str) -> bool:
    """Whether a name or an address, without a port, is of this machine for every resolver and browser."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def guard_of(settings: Settings) -> Callable[[Handler], Handler] | None:
    """Return what is to be put before each endpoint, None where callers show keys."""
    return None if settings.auth == "keys" else partial(FromHere, any_host=settings.auth_none_anywhere)


class FromHere:
    """An endpoint that answers programs of this machine alone."""

    def __init__(self, handler: Handler, *, any_host: bool) -> None:
        """`any_host`: it may be called by any name; then pages may only be of that name, too."""
        self._handler = handler
        self._any_host = any_host

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        host = headers.get(b"host")
        if host is not None and not self._any_host and not _names_loopback(host):
            raise Forbidden(
                "this gateway asks for no key, so it answers only as localhost, 127.0.0.1 or [::1], not as"
                f" '{_shown(host)}'"
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._is_own(origin.partition(b"://")[2], host):
            raise Forbidden(
                f"this gateway asks for no key, so it answers no web page of another site: '{_shown(origin)}'"
            )
        await self._handler(scope, receive, send, headers, event_id)

    def _is_own(self, authority: bytes, host: bytes | None) -> bool:
        if self._any_host:
            return host is not None and authority.lower() == host.lower()
        return _names_loopback(authority)


def _names_loopback(authority: bytes) -> bool:
    """Whether `host` or `host:port` is of this machine."""
    text = authority.decode("latin-1")
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not host.count(":"):
            return False
    else:
        host, colon, port = text.partition(":")
        port = colon + port
    return (not port or (port.startswith(":") and port[1:].isdecimal())) and is_loopback(host)


def _shown(value: bytes) -> str:
    return value.decode("latin-1")[:SHOWN_CHARS_MAX]
