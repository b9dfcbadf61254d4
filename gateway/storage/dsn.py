"""Addresses of Postgres: accepted spellings in, what each library wants out, and never a password in a message."""

from __future__ import annotations

from urllib.parse import urlsplit

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


def asyncpg_dsn(dsn: str) -> str:
    """Return `dsn` as asyncpg takes it. Raises ValueError, without quoting the address, when it is none."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("a Postgres address starts with postgresql://")
    return f"postgresql://{rest}"


def redacted(url: str) -> str:
    """Return an address for people: user and host, without password and without query."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
    credentials, _, host = parts.netloc.rpartition("@")
    user = credentials.partition(":")[0]
    netloc = f"{user}:***@{host}" if ":" in credentials else f"{user}@{host}"
    return f"{parts.scheme}://{netloc}{parts.path}"
