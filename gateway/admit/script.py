"""The Lua scripts of this package, as Redis knows them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files

_SHARED = {
    "reserve": ("buckets", "budgets"),
    "settle": ("buckets", "budgets"),
    "renew": ("buckets",),
    "probe": ("buckets",),
    "begin_budgets": ("buckets", "budgets"),
    "mend_budgets": ("buckets", "budgets"),
    "held_budgets": (),
    "share_experience": (),
}


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the SHA-1 that Redis knows it by."""

    source: str
    sha1: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read `name`.lua from beside this module, with what it shares with others before it."""
        package = files("gateway.admit")
        parts = (*_SHARED.get(name, ()), name)
        source = "".join(package.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
        return cls(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
