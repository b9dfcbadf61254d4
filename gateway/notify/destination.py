"""Where a webhook's address leads: its name is resolved, and only what may be connected to is.

The connection goes to the address that was looked at (`Destination.address`), never to the name again, which could have
another one by then. Redirects are not followed, for the same reason.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from gateway.domain.addresses import Network, is_within, parse_address
from gateway.domain.public_addresses import is_public
from gateway.errors import InvalidRequest, reason_of
from gateway.patience import Deadline

if TYPE_CHECKING:
    from gateway.domain.addresses import Address

URL_CHARS_MAX = 2000
RESOLVE_S_MAX = 5.0
ADDRESSES_MAX = 3
"""Addresses of one name that a connection is tried to."""

_PORTS = {"https": 443, "http": 80}
_PORT_MAX = 65_535
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.ASCII)


class Unreachable(Exception):
    """Nothing may or can be connected to; the message says why, for whoever administers the webhook."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to connect to, and as whom: `host` is the name in the webhook's address."""

    url: httpx2.URL
    address: Address
    port: int


def checked_url(text: str) -> str:
    """Return the address of a webhook; raise InvalidRequest for what is none or holds what it should not."""
    if len(text) > URL_CHARS_MAX:
        raise InvalidRequest(f"url is longer than {URL_CHARS_MAX} characters", param="url")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("url holds a character that addresses do not have; escape it", param="url")
    try:
        url = httpx2.URL(text)
        port = url.port
    except (httpx2.InvalidURL, ValueError):
        raise InvalidRequest("url must look like https://hooks.example.com/penstock", param="url") from None
    host = url.raw_host.decode()
    named = _NAME.fullmatch(host) or (":" in host and parse_address(host))
    if url.scheme not in _PORTS or not named or not (port is None or 0 < port <= _PORT_MAX):
        raise InvalidRequest("url must look like https://hooks.example.com/penstock", param="url")
    if url.userinfo:
        raise InvalidRequest("url must not hold a password: receivers verify the signature", param="url")
    if url.fragment:
        raise InvalidRequest("url must not hold a fragment: it is not sent", param="url")
    return text


async def destinations(text: str, allowed: tuple[Network, ...]) -> list[Destination]:
    """Return where a webhook's address leads, at most ADDRESSES_MAX, in the order in which to try them.

    Args:
        text: the address, as `checked_url` takes it.
        allowed: networks that are not public and may be connected to, also without TLS.

    Raises Unreachable.
    """
    url = httpx2.URL(text)
    port = url.port or _PORTS[url.scheme]
    found = await _resolved(url.raw_host.decode(), port)  # the very name that its certificate is held against
    permitted = [
        address for address in found if is_within(address, allowed) or (url.scheme == "https" and is_public(address))
    ]
    if not permitted:
        if any(is_public(address) for address in found):
            raise Unreachable("http:// is only for addresses in PENSTOCK_WEBHOOK_PRIVATE_ADDRESSES; use https://")
        raise Unreachable(
            f"{url.host} is no public address; PENSTOCK_WEBHOOK_PRIVATE_ADDRESSES says which others may be connected to"
        )
    return [Destination(url, address, port) for address in permitted[:ADDRESSES_MAX]]


async def _resolved(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, each once. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    try:
        async with Deadline(RESOLVE_S_MAX):
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else reason_of(error)
        raise Unreachable(f"{host} cannot be resolved: {reason}") from error
    addresses = (parse_address(str(answer[4][0])) for answer in answers)
    return [address for address in dict.fromkeys(addresses) if address is not None]
