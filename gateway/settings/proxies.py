"""Settings of who is believed when it says whose request it passes on."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from gateway.settings.networks import NETWORKS_UNIT, Networks


def _not_everybody(networks: Networks) -> Networks:
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("must not trust every address: each client could then say that it has any")
    return networks


class ProxySettings(BaseModel):
    """Proxies before the gateway."""

    trusted_proxies: Annotated[Networks, AfterValidator(_not_everybody)] = Field(
        default=(),
        description=(
            "Proxies and load balancers whose `X-Forwarded-For` tells a client's address, as networks or addresses "
            "with commas between; in penstock.yaml a list. Empty: every connection's other end is the client."
        ),
        json_schema_extra={"unit": NETWORKS_UNIT},
    )
