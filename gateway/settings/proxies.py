"""Settings of who is believed when it says whose request it passes on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from gateway.domain.addresses import Network, parse_network

TRUSTED_PROXIES_MAX = 256


def _networks(value: object) -> object:
    """Read networks as the environment has them, with commas between, or as a list of penstock.yaml."""
    if not isinstance(value, str | list | tuple):
        return value  # refused by its type
    given = value.split(",") if isinstance(value, str) else value
    if len(given) > TRUSTED_PROXIES_MAX:
        raise ValueError(f"must list at most {TRUSTED_PROXIES_MAX} networks")
    return tuple(_network(str(one)) for one in given)


def _network(text: str) -> Network:
    network = parse_network(text)
    if network.prefixlen == 0:
        raise ValueError("must not trust every address: each client could then say that it has any")
    return network


class ProxySettings(BaseModel):
    """Proxies before the gateway."""

    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        default=(),
        description=(
            "Proxies and load balancers whose `X-Forwarded-For` tells a client's address, as networks or addresses "
            "with commas between; in penstock.yaml a list. Empty: every connection's other end is the client."
        ),
        json_schema_extra={"unit": f"networks, at most {TRUSTED_PROXIES_MAX}"},
    )
