"""Addresses that may hold a password, kept where `repr`, logs and tracebacks cannot show them.

Only the form is checked here, and no message quotes an address; each client library gets its own spelling in
`gateway.storage`.
"""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from gateway.settings.problems import listed

POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def _check_address(address: SecretStr, schemes: tuple[str, ...], example: str) -> SecretStr:
    scheme, separator, rest = address.get_secret_value().partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"must start with {listed([f'{name}://' for name in schemes])}, such as {example}")
    try:
        _ = "," in rest or urlsplit(address.get_secret_value()).port  # several hosts are read by `gateway.storage`
    except ValueError:  # its message may quote the address
        raise ValueError(f"is not an address such as {example}") from None
    return address


def _postgres(address: SecretStr) -> SecretStr:
    return _check_address(address, POSTGRES_SCHEMES, "postgresql://user:password@host:5432/penstock")


def _redis(address: SecretStr) -> SecretStr:
    return _check_address(address, REDIS_SCHEMES, "redis://:password@host:6379/0")


PostgresDsn = Annotated[SecretStr, AfterValidator(_postgres)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis)]


def secret_in_environment(name: str) -> SecretStr | None:
    """Return a secret that somebody gives to a command in a variable of its own, None when it is not set or empty."""
    value = os.environ.get(name, "").strip()
    return SecretStr(value) if value else None
