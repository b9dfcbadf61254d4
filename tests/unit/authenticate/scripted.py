"""A key store that says what a test tells it to and counts how often it was asked, and a clock to move by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.authenticate import authenticator
from gateway.authenticate.authenticator import Authenticator, CachePolicy
from gateway.authenticate.key import NewKey, Peppers, make_key
from gateway.authenticate.key_store import StoredKey
from gateway.domain.principal import Principal
from gateway.errors import KeyStoreUnavailable
from gateway.observe.metrics import Metrics
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import pytest

PEPPERS = Peppers({3: b"p" * 32})
POLICY = CachePolicy(ttl_s=60, negative_ttl_s=5, stale_s_max=900, entries_max=100, lookup_timeout_s=5)


@dataclass
class Clock:
    """Stands in for the module `time` in the authenticator."""

    monotonic_s: float = 1_000.0
    unix_s: float = 1_800_000_000.0

    def monotonic(self) -> float:
        """Return the time that caches go by."""
        return self.monotonic_s

    def time(self) -> float:
        """Return the time that keys expire by."""
        return self.unix_s

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic_s += seconds
        self.unix_s += seconds

    @classmethod
    def put_in(cls, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Return the clock that the authenticator goes by from now on."""
        clock = cls()
        monkeypatch.setattr(authenticator, "time", clock)
        return clock


class Store:
    """Keys by public id. While `away` it fails; while `gate` is closed its answers are on their way."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredKey] = {}
        self.away = False
        self.broken = False
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def add(self, peppers: Peppers = PEPPERS, **changes: object) -> NewKey:
        """Make a key of a tenant of its own; `changes` are fields of its principal."""
        key = make_key(peppers)
        principal = Principal(uuid4(), "org", uuid4(), "team", None, None, uuid4(), key.public_id)
        principal = replace(principal, **changes)  # type: ignore[arg-type] # the fields' types are the callers' concern
        self.keys[key.public_id] = StoredKey(principal, key.secret_hmac, key.pepper_version)
        return key

    def change(self, key: NewKey, **changes: object) -> None:
        """Change fields of a key's principal."""
        stored = self.keys[key.public_id]
        changed = replace(stored.principal, **changes)  # type: ignore[arg-type] # see above
        self.keys[key.public_id] = replace(stored, principal=changed)

    async def find(self, public_id: str) -> StoredKey | None:
        """Answer with what was there when it was asked."""
        self.asked.append(public_id)
        found, away = self.keys.get(public_id), self.away
        await self.gate.wait()
        if self.broken:
            raise RuntimeError("a bug")
        if away:
            raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0)
        return None if found is None else replace(found, principal=replace(found.principal))


@dataclass
class Desk:
    """An authenticator with all that it stands on."""

    store: Store
    clock: Clock
    metrics: Metrics
    authenticator: Authenticator
    away: list[None]
    """One element for each time that the authenticator told of a late or missing Postgres."""

    async def ask(self, key: NewKey | str, address: str = "10.0.0.1") -> Principal:
        """Return who a key is."""
        token = key if isinstance(key, str) else key.text
        return self.authenticator.cached(token) or await self.authenticator.authenticate(token, address)

    async def is_asked(self, count: int) -> None:
        """Wait until the store was asked that often."""
        await wait_until(lambda: len(self.store.asked) >= count, f"the store is asked {count} times")

    def lookups(self, result: str) -> float:
        """Return how many lookups ended this way."""
        return self.metrics.registry.get_sample_value("penstock_key_lookups_total", {"result": result}) or 0.0


def make_desk(monkeypatch: pytest.MonkeyPatch, policy: CachePolicy = POLICY) -> Desk:
    """Return an authenticator that hears of changes."""
    store, metrics = Store(), Metrics()
    away: list[None] = []
    authenticator = Authenticator(store, PEPPERS, policy, metrics, on_away=lambda: away.append(None))
    desk = Desk(store, Clock.put_in(monkeypatch), metrics, authenticator, away)
    desk.authenticator.trust(trusted=True)
    return desk
