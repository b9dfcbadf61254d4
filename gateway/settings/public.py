"""Settings of what people and their clients are told: the gateway's public address, and what OpenCode is given.

What stands here ends up in shell commands and configuration files on other people's machines, so its characters are
bounded here, once, to those that mean nothing there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

ADDRESS_CHARS_MAX = 255
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.IGNORECASE)
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_PROVIDER_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PROVIDER_NAME = re.compile(r"[\w .,:()&+-]{1,60}")

PROVIDERS_OF_OPENCODE = ("amazon-bedrock", "anthropic", "azure", "github-copilot", "google", "openai", "opencode")
"""How names of providers begin that OpenCode treats in its own way: it repeats a 404 of `openai…`, for one."""


def _text(default: str | None, unit: str, description: str) -> Any:
    return Field(default, max_length=ADDRESS_CHARS_MAX, description=description, json_schema_extra={"unit": unit})


class PublicSettings(BaseModel):
    """What is told about this gateway. None of it is a secret."""

    public_url: str | None = _text(
        None,
        "http:// or https:// address",
        "Address under which people and their clients reach the gateway, such as `https://gateway.example.com`: what "
        "`/.well-known/opencode`, `/opencode/config.json` and `/setup` tell them, whatever host they asked. Without a "
        "slash at the end and without `/v1`. Default: `http://127.0.0.1:PORT`, which is of use on this machine alone.",
    )
    opencode_provider_id: str = _text(
        "penstock",
        "1 to 63 of a-z, 0-9 and -",
        "What OpenCode calls the gateway in `provider/model`. Must not begin like one of OpenCode's own providers "
        f"({', '.join(f'`{name}`' for name in PROVIDERS_OF_OPENCODE)}).",
    )
    opencode_provider_name: str = _text(
        "Penstock",
        "1 to 60 letters, digits, spaces and simple punctuation",
        "What OpenCode shows for the gateway in its lists.",
    )
    opencode_model: str | None = _text(
        None,
        "a model's name or alias",
        "Which model OpenCode begins with. Default, also where the key may not use it: the first in penstock.yaml that "
        "the key may use and that has tools.",
    )
    opencode_small_model: str | None = _text(
        None,
        "a model's name or alias",
        "Which model OpenCode takes for titles and the like. Default, also where the key may not use it: the model "
        "that it begins with.",
    )

    opencode_only: bool = Field(
        default=False,
        description="Whether OpenCode offers this gateway's models alone: neither the free ones that it comes with, "
        "which send prompts elsewhere, nor those of providers that developers have logged in to themselves.",
    )

    @field_validator("public_url")
    @classmethod
    def _plain_address(cls, url: str | None) -> str | None:
        return None if url is None else plain_address(url)

    @field_validator("opencode_provider_id")
    @classmethod
    def _own_provider(cls, name: str) -> str:
        if not _PROVIDER_ID.fullmatch(name):
            raise ValueError("must be 1 to 63 of a-z, 0-9 and -, beginning with a letter")
        if name.startswith(PROVIDERS_OF_OPENCODE):
            raise ValueError("must not begin like one of OpenCode's own providers: it treats those in its own way")
        return name

    @field_validator("opencode_provider_name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _PROVIDER_NAME.fullmatch(name) or name.strip() != name:
            raise ValueError("must be 1 to 60 letters, digits, spaces and simple punctuation")
        return name


def plain_address(url: str) -> str:
    """Return a gateway's address in one spelling: lower-case scheme and host.

    Raises ValueError for whatever is more than an address, without quoting it.
    """
    example = "such as https://gateway.example.com"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a port that is no number, an unclosed bracket
        raise ValueError(f"must be an address {example}") from None
    if parts.scheme not in {"http", "https"} or port == 0 or not _is_host(host) or not url.isprintable():
        raise ValueError(f"must be an http:// or https:// address {example}")
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: it is told to everybody")
    if "?" in url or "#" in url:
        raise ValueError("must not hold a query or a fragment")
    if url.endswith("/"):
        raise ValueError("must not end in a slash")
    if not _PATH.fullmatch(parts.path) or ".." in parts.path:
        raise ValueError("may only have a plain path after the host")
    if parts.path.endswith("/v1"):
        raise ValueError("must be the address without /v1, which is added where a client wants it")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path}"


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host
