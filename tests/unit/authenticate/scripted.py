"""A key store that says what a test tells it to and counts how often it was asked, and a clock to move by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from gateway.authenticate import authenticator, refusals
from gateway.authenticate.authenticator import Authenticator, CachePolicy
from gateway.authenticate.key import NewKey, Peppers, make_key, rotated_key
from gateway.authenticate.key_store import Secret, StoredKey
from gateway.authenticate.refusals import Ended, Reason
from gateway.domain.principal import Principal
from gateway.errors import KeyStoreUnavailable
from gateway.observe.metrics import Metrics
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import pytest

PEPPERS = Peppers({3: b"p" * 32})
POLICY = CachePolicy(
    ttl_s=60, negative_ttl_s=5, stale_s_max=900, entries_max=100, lookup_timeout_s=5, first_lookup_timeout_s=5
)


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
        for module in (authenticator, refusals):
            monkeypatch.setattr(module, "time", clock)
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
        self.keys[key.public_id] = StoredKey((Secret(principal, key.secret_hmac, key.pepper_version),))
        return key

    def principal(self, key: NewKey) -> Principal:
        """Return whose key it is."""
        meaning = self.keys[key.public_id].secrets[0].meaning
        assert isinstance(meaning, Principal)
        return meaning

    def change(self, key: NewKey, **changes: object) -> None:
        """Change fields of a key's principal."""
        (secret,) = self.keys[key.public_id].secrets
        changed = replace(self.principal(key), **changes)  # type: ignore[arg-type] # see above
        self.keys[key.public_id] = StoredKey((replace(secret, meaning=changed),))

    def rotate(self, key: NewKey, grace_s: float, now_s: float) -> NewKey:
        """Return the key under a new secret; the one before counts until `now_s` and the grace are over."""
        principal = self.principal(key)
        before = self.keys[key.public_id].secrets[0]
        new = rotated_key(PEPPERS, key.public_id)
        old = replace(before, meaning=replace(principal, expires_at_s=now_s + grace_s))
        self.keys[key.public_id] = StoredKey((Secret(principal, new.secret_hmac, new.pepper_version), old))
        return new

    def end(self, key: NewKey, reason: Reason, at_s: float | None = None) -> Ended:
        """Let a key count no longer."""
        owner = self.principal(key)
        ended = Ended(reason, at_s, owner.organization_id, owner.key_id, key.public_id)
        secrets = tuple(replace(secret, meaning=ended) for secret in self.keys[key.public_id].secrets)
        self.keys[key.public_id] = StoredKey(secrets)
        return ended

    async def find(self, public_id: str) -> StoredKey | None:
        """Answer with what was there when it was asked."""
        self.asked.append(public_id)
        found, away = self.keys.get(public_id), self.away
        await self.gate.wait()
        if self.broken:
            raise RuntimeError("a bug")
        if away:
            raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0)
        return None if found is None else StoredKey(tuple(_copied(secret) for secret in found.secrets))


def _copied(secret: Secret) -> Secret:
    """Return what a store returns: nothing of it is an object that it returned before."""
    return replace(secret, meaning=replace(secret.meaning))


@dataclass
class Desk:
    """An authenticator with all that it stands on."""

    store: Store
    clock: Clock
    metrics: Metrics
    authenticator: Authenticator
    away: list[None]
    """One element for each time that the authenticator told of a late or missing Postgres."""
    revoked: list[tuple[object, ...]]
    """What it told of uses of revoked keys."""

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
    revoked: list[tuple[object, ...]] = []
    authenticator = Authenticator(
        store,
        PEPPERS,
        policy,
        metrics,
        on_away=lambda: away.append(None),
        on_revoked_use=lambda *told: revoked.append(told),
    )
    desk = Desk(store, Clock.put_in(monkeypatch), metrics, authenticator, away, revoked)
    desk.authenticator.trust(trusted=True)
    return desk
