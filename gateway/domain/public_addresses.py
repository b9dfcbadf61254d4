"""Which addresses are public: where neither this host, nor the network that it stands in, nor a cloud's metadata is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.domain.addresses import Address

_NAT64: Final = "64:ff9b::/96"


def is_public(address: Address) -> bool:
    """Return whether an address is reached over the public internet and belongs to one host.

    Private, loopback, link-local (with the metadata of clouds), shared (RFC 6598), reserved, unspecified and multicast
    ones are not, nor are those of IPv6 that carry one of IPv4 (mapped, 6to4, Teredo, NAT64): where they lead is said by
    what they carry, and translators differ in which of those they take.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    carried = address.ipv4_mapped or address.sixtofour or address.teredo or address in IPv6Network(_NAT64)
    return not carried and address.is_global and not address.is_multicast and not address.is_site_local
