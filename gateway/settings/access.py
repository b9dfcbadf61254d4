"""Settings of who may use the gateway: whoever has a key, or whoever works on the machine that it runs on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class AccessSettings(BaseModel):
    """Whether callers need a key."""

    auth: Annotated[Literal["keys", "none"], BeforeValidator(_lower)] = Field(
        default="keys",
        description=(
            "`keys`: every request shows an API key. `none`: none needs to, and all that is used is the organization "
            "`local`'s; only on a loopback `host`. The control plane needs an admin key either way. See local.md."
        ),
    )
    auth_none_anywhere: bool = Field(
        default=False,
        description=(
            "Allow `auth: none` on a `host` that others reach, under any name: whoever reaches the port spends the "
            "organization `local`'s money. For a container or a network where something else decides who comes in."
        ),
        json_schema_extra={"unit": "`true` or `false`"},
    )
