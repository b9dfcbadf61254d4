"""Where a request comes from: addresses and networks as headers and people write them, and the client behind proxies.

`X-Forwarded-For` is what anybody may send. It is believed only as far as it was written by proxies that are trusted,
and so it is read from the right: each hop is believed when the one after it is a trusted proxy.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

HOPS_MAX = 32
"""How many hops of a chain of proxies are looked at, from the right."""
ADDRESS_CHARS_MAX = 64
"""The longest address that is read: 45 characters of IPv6, brackets, a zone and a port."""

_MAPPED_BITS = 96
"""Leading bits of IPv6 that say that the rest is an address of IPv4 (`::ffff:0:0/96`)."""


def parse_address(text: str) -> Address | None:
    """Return the address in `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1` or `[2001:db8::1]:4711`, else None.

    A port and the zone of an address (`%eth0`) are dropped, and an IPv4 address mapped to IPv6 is the IPv4 address.
    """
    text = text.strip(" \t")
    if len(text) > ADDRESS_CHARS_MAX:
        return None
    bracketed = text.startswith("[")
    port = ""
    if bracketed:
        text, bracket, port = text[1:].partition("]")
        if not bracket:
            return None
    elif text.count(":") == 1:  # more of them are IPv6, which has a port only after brackets
        text, colon, port = text.partition(":")
        port = colon + port
    if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdigit() and int(port[1:]) <= 65_535):
        return None
    text, percent, _zone = text.partition("%")
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return None if bracketed or percent else address
    return address.ipv4_mapped or address


def parse_network(text: str) -> Network:
    """Return the network in `10.0.0.0/8`, `2001:db8::/32`, or a single address.

    Raises ValueError with what to write instead.
    """
    if len(text) > ADDRESS_CHARS_MAX or "%" in text:
        raise ValueError("must be a network such as 10.0.0.0/8 or 2001:db8::/32, or one address")
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or 2001:db8::/32, or one address") from None
    if ip_address(text.strip().partition("/")[0]) != network.network_address:
        raise ValueError(f"names one address and the length of a network: write {network}, or the address alone")
    return unmapped(network)


def unmapped(network: Network) -> Network:
    """Return a network as addresses are compared with it: one of mapped IPv4 addresses is the IPv4 network."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def is_within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of the networks; one that is not known lies in none."""
    return address is not None and any(address in network for network in networks)


class TrustedProxies:
    """Finds the client behind the proxies that are trusted to say who it is. Without any, the peer is the client."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the client's address in its shortest spelling, `peer` as it is when that is the client.

        The client is the right-most address of `X-Forwarded-For` that is no trusted proxy; the left-most one when all
        are. The peer is, when it is no trusted proxy itself, the header is missing, or holds something else than an
        address where one is needed.

        Args:
            peer: the other end of the connection; empty when it has no address.
            headers: all of the request, in their order, names in lower case: proxies add lines as well as entries.
        """
        if not self._networks or not is_within(parse_address(peer), self._networks):
            return peer
        lines = [value for name, value in headers if name == b"x-forwarded-for"]
        if not lines:
            return peer
        hops = b",".join(lines).rsplit(b",", HOPS_MAX)[-HOPS_MAX:]
        client = None
        for hop in reversed(hops):
            client = parse_address(hop.decode("latin-1"))
            if not is_within(client, self._networks):
                return peer if client is None else str(client)
        return str(client)
