"""Which addresses are public: where neither this host, nor the network that it stands in, nor a cloud's metadata is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.domain.addresses import Address

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA gives out: outside are other ways to carry an address of IPv4 (RFC 4291, 2765, 6052, 8215)."""

_SPECIAL: Final = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))
"""Special (RFC 6890, 7526, 9637), whatever the `ipaddress` of a release of Python says of them."""


def is_public(address: Address) -> bool:
    """Return whether an address is reached over the public internet and belongs to one host.

    Private, loopback, link-local (with the metadata of clouds), shared (RFC 6598), reserved, unspecified and multicast
    ones are not, nor are those of IPv6 that carry one of IPv4 (mapped, 6to4, Teredo, NAT64): where they lead is said by
    what they carry, and translators differ in which of those they take.
    """
    if not address.is_global or address.is_multicast or any(address in network for network in _SPECIAL):
        return False
    return isinstance(address, IPv4Address) or (
        address in _GLOBAL_UNICAST and not address.sixtofour and not address.teredo
    )
