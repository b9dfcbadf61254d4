"""Settings of where webhooks may lead."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from gateway.domain.addresses import Network, parse_network

NETWORKS_MAX = 256


def _networks(value: object) -> object:
    """Read networks as the environment has them, with commas between, or as a list of penstock.yaml."""
    if not isinstance(value, str | list | tuple):
        return value  # refused by its type
    given = value.split(",") if isinstance(value, str) else value
    if len(given) > NETWORKS_MAX:
        raise ValueError(f"must list at most {NETWORKS_MAX} networks")
    return tuple(parse_network(str(one)) for one in given)


class WebhookSettings(BaseModel):
    """What the gateway sends to others by itself."""

    webhook_private_addresses: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = Field(
        default=(),
        description=(
            "Networks or addresses that are not public and that webhooks may be sent to all the same, also by "
            "`http://`, with commas between; in penstock.yaml a list. Whoever may make webhooks can then make the "
            "gateway connect there. Empty: public addresses by `https://` alone."
        ),
        json_schema_extra={"unit": f"networks, at most {NETWORKS_MAX}"},
    )
