"""Networks as settings have them: in the environment with commas between, in penstock.yaml as a list."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from gateway.domain.addresses import Network, parse_network

NETWORKS_MAX = 256
NETWORKS_UNIT = f"networks, at most {NETWORKS_MAX}"


def _networks(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        return value  # refused by its type
    given = value.split(",") if isinstance(value, str) else value
    if len(given) > NETWORKS_MAX:
        raise ValueError(f"must list at most {NETWORKS_MAX} networks")
    return tuple(parse_network(str(one)) for one in given)


Networks: TypeAlias = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]
