"""ETags: a digest of a thing as it stands, so that nobody overwrites what somebody else has changed meanwhile."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

_WEAK: Final = "W/"


def entity_tag(resource: object) -> str:
    """Return the strong ETag of a thing, a dataclass, which is the same as long as every field is."""
    return f'"{hashlib.sha256(msgspec.json.encode(resource, order="deterministic")).hexdigest()[:32]}"'


def matches(header: str, tag: str) -> bool:
    """Return whether If-Match or If-None-Match names `tag`: one of a list of ETags, or `*` for any."""
    wanted = [one.strip().removeprefix(_WEAK) for one in header.split(",")]
    return "*" in wanted or tag in wanted
