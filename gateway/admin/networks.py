"""Networks that keys are held to, as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.addresses import parse_network
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.domain.addresses import Network

ADDRESSES_MAX = 100


def checked_networks(texts: Sequence[str], param: str = "addresses") -> tuple[Network, ...]:
    """Return networks such as 10.0.0.0/8, or single addresses, without repetitions. Raises InvalidRequest."""
    if not texts or len(texts) > ADDRESSES_MAX:
        raise InvalidRequest(f"{param} must list 1 to {ADDRESSES_MAX} networks, such as 10.0.0.0/8", param=param)
    networks = []
    for number, text in enumerate(texts, 1):
        try:
            networks.append(parse_network(text))
        except ValueError as error:
            raise InvalidRequest(f"entry {number} of {param} {error}", param=param) from None
    return tuple(dict.fromkeys(networks))
