"""Turns a token into a principal: from the cache in a microsecond, from Postgres on a miss.

A cached key is trusted for a minute while changes are heard (`gateway.storage.changes`); what a change touches is
verified again at its next use. A key that was rotated has two texts for a while, and both are cached. With Postgres
away, keys verified in the last 15 minutes are served and unknown ones get 503: nobody is told that a key is wrong
because a database is down.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from gateway.authenticate.key import ParsedKey, Peppers, fingerprint, parse_key
from gateway.authenticate.refusals import Ended, EndedKey, Reason, Refusals, RevokedUses
from gateway.domain.principal import Principal
from gateway.errors import InvalidKey, KeyStoreUnavailable
from gateway.patience import done_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.authenticate.key_store import StoredKey
    from gateway.authenticate.refusals import OnRevokedUse
    from gateway.observe.metrics import Metrics
    from gateway.settings import Settings

TENANTS_CHANGED_MAX = 100_000
LOOKUPS_PER_ADDRESS_MAX = 256
UNHEARD_TTL_S = 0.5
"""How long a key is trusted while changes are not heard: short enough for a revocation to act within a second."""

_AWAY_PAUSE_S = 0.5

_INVALID = "the API key is missing or not valid; send it as 'Authorization: Bearer sk-pst-…'"


class FindsKeys(Protocol):
    """Where keys are kept; raises KeyStoreUnavailable when it does not answer."""

    async def find(self, public_id: str) -> StoredKey | None: ...


@dataclass(slots=True)
class _Known:
    principal: Principal
    verified_s: float
    generation: int
    """The cache's generation when it was verified; an older one must be verified again."""
    tenant_changes: int
    """How often its organization had changed by then; likewise."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Seconds and sizes of the key cache; see the settings of the same names."""

    ttl_s: float
    negative_ttl_s: float
    stale_s_max: float
    entries_max: int
    lookup_timeout_s: float
    first_lookup_timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> CachePolicy:
        """Return those that were set."""
        return cls(
            ttl_s=settings.key_cache_ttl_s,
            negative_ttl_s=settings.key_cache_negative_ttl_s,
            stale_s_max=settings.key_stale_max_s,
            entries_max=settings.key_cache_entries_max,
            lookup_timeout_s=settings.key_lookup_timeout_ms / 1000,
            first_lookup_timeout_s=settings.key_first_lookup_timeout_ms / 1000,
        )


class Authenticator:
    """The key cache, and the way to Postgres around it.

    `on_away` is called when a lookup is late or fails, `on_revoked_use` when somebody shows a revoked key.
    """

    def __init__(
        self,
        store: FindsKeys,
        peppers: Peppers,
        policy: CachePolicy,
        metrics: Metrics,
        *,
        on_away: Callable[[], None],
        on_revoked_use: OnRevokedUse | None = None,
    ) -> None:
        self._store = store
        self._peppers = peppers
        self._policy = policy
        self._on_away = on_away
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._marks: dict[str, set[bytes]] = {}
        """The fingerprints under which `_known` has a public id: two while a rotated key has two texts."""
        self._refusals = Refusals(policy.negative_ttl_s)
        self._revoked_uses = RevokedUses(on_revoked_use)
        self._tenant_changes: dict[UUID, int] = {}
        self._lookups: dict[bytes, asyncio.Task[Principal | Ended | None]] = {}
        self._lookups_by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Principal | Ended | None]] = set()
        self._generation = 0
        self._heard = False
        self._away_until_s = 0.0
        self._hits = metrics.key_lookups.labels("hit")
        self._results = metrics.key_lookups

    def cached(self, token: str) -> Principal | None:
        """Return the principal of a token that is known and fresh, None when `authenticate` must be asked."""
        known = self._known.get(fingerprint(token))
        if known is None or known.generation != self._generation:
            return None
        principal = known.principal
        if known.tenant_changes != self._tenant_changes.get(principal.organization_id, 0):
            return None
        ttl_s = self._policy.ttl_s if self._heard else UNHEARD_TTL_S
        if time.monotonic() - known.verified_s > ttl_s or self._expired(principal):
            return None
        self._hits.inc()
        return principal

    async def authenticate(self, token: str, address: str) -> Principal:
        """Return the principal of a token.

        Args:
            token: what the client sent, without `Bearer`.
            address: the client's address, which concurrent lookups are bounded by.

        Raises:
            EndedKey: a key that counts no longer; it says why.
            InvalidKey: not a key, or one that nobody has.
            KeyStoreUnavailable: Postgres does not answer and the key was not verified recently.
        """
        if (principal := self.cached(token)) is not None:
            return principal
        parsed = parse_key(token)
        if parsed is None:
            raise InvalidKey(_INVALID)
        mark = fingerprint(token)
        refused, ended = self._refusals.find(parsed.public_id, mark, time.monotonic())
        if refused:
            raise self._refusal(ended, address)
        try:
            found = await self._look_up(mark, parsed, address)
        except KeyStoreUnavailable:
            principal = self._stale(mark)
            if principal is None:
                self._results.labels("unavailable").inc()
                raise
            self._results.labels("stale").inc()
            return principal
        if not isinstance(found, Principal):
            raise self._refusal(found, address)
        if self._expired(found):  # by the clock of this machine, which is ahead of Postgres'
            self._results.labels(Reason.EXPIRED).inc()
            raise EndedKey.because(Reason.EXPIRED, found.expires_at_s)
        self._results.labels("miss").inc()
        return found

    def changed(self, kind: str, subject: str) -> None:
        """A key, or something above keys, changed in Postgres: verify again what it touches."""
        if kind == "key":
            for mark in self._marks.pop(subject, ()):
                del self._known[mark]
            self._refusals.forget(subject)
            # A lookup that began before the change may yet answer with what was before it.
            self._lookups.clear()
        elif kind == "organization":
            tenant = UUID(subject)
            if len(self._tenant_changes) >= TENANTS_CHANGED_MAX:
                self._tenant_changes.clear()
                self._generation += 1
            self._tenant_changes[tenant] = self._tenant_changes.get(tenant, 0) + 1
            self._refusals.clear()
            self._lookups.clear()

    def trust(self, *, trusted: bool) -> None:
        """Changes are heard from now on, or no longer; either way some may have been missed."""
        self._heard = trusted
        self._generation += 1
        self._lookups.clear()
        self._refusals.clear()

    async def close(self) -> None:
        """Stop the lookups under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _refusal(self, ended: Ended | None, address: str) -> InvalidKey:
        """Count a key that does not count, and return what its user is told."""
        if ended is None:
            self._results.labels("unknown").inc()
            return InvalidKey(_INVALID)
        self._results.labels(ended.reason).inc()
        self._revoked_uses.used(ended, address)
        return EndedKey.because(ended.reason, ended.at_s)

    async def _look_up(self, mark: bytes, parsed: ParsedKey, address: str) -> Principal | Ended | None:
        """Ask Postgres within the deadline; requests that miss the same key share one question."""
        if time.monotonic() < self._away_until_s:
            raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0)
        task = self._lookups.get(mark)
        if task is None:
            waiting = self._lookups_by_address.get(address, 0)
            if waiting >= LOOKUPS_PER_ADDRESS_MAX:
                raise KeyStoreUnavailable("too many keys are being verified for your address", retry_after_s=1.0)
            self._lookups_by_address[address] = waiting + 1
            task = asyncio.get_running_loop().create_task(self._verify(mark, parsed))
            self._lookups[mark] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._looked_up(mark, address, done))
        known = self._stale(mark) is not None
        if not await done_within(task, self._policy.lookup_timeout_s if known else self._policy.first_lookup_timeout_s):
            self._leave_alone()
            raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0)
        if task.cancelled():
            raise KeyStoreUnavailable("keys cannot be verified now", retry_after_s=1.0)
        error = task.exception()
        if isinstance(error, KeyStoreUnavailable):
            self._leave_alone()
            raise KeyStoreUnavailable(error.message, retry_after_s=error.retry_after_s)
        if error is not None:
            raise error
        return task.result()

    def _leave_alone(self) -> None:
        """Postgres is away, or as good as: ask nothing for a moment."""
        self._away_until_s = time.monotonic() + _AWAY_PAUSE_S
        self._on_away()

    def _looked_up(self, mark: bytes, address: str, task: asyncio.Task[Principal | Ended | None]) -> None:
        self._tasks.discard(task)
        if self._lookups.get(mark) is task:
            del self._lookups[mark]
        waiting = self._lookups_by_address.pop(address, 1) - 1
        if waiting > 0:
            self._lookups_by_address[address] = waiting
        if not task.cancelled():
            task.exception()  # read, so that an answer nobody waited for is no warning

    async def _verify(self, mark: bytes, parsed: ParsedKey) -> Principal | Ended | None:
        generation = self._generation
        started_s = time.monotonic()
        stored = await self._store.find(parsed.public_id)
        # When something changed meanwhile, the answer is good for those who waited, not for the cache.
        current = self._lookups.get(mark) is asyncio.current_task()
        meaning = None if stored is None else self._meaning(parsed, stored)
        if not isinstance(meaning, Principal):
            self._forget(mark)
            if current:
                self._refusals.remember(parsed.public_id, mark, meaning, time.monotonic())
            return meaning
        if not current:
            return meaning
        before = self._known.get(mark)
        # The same object again when nothing changed: what others derived from it stays valid.
        principal = before.principal if before is not None and before.principal == meaning else meaning
        changes = self._tenant_changes.get(principal.organization_id, 0)
        self._known[mark] = _Known(principal, started_s, generation, changes)
        self._known.move_to_end(mark)
        self._marks.setdefault(parsed.public_id, set()).add(mark)
        while len(self._known) > self._policy.entries_max:
            self._forget(next(iter(self._known)))
        return principal

    def _meaning(self, parsed: ParsedKey, stored: StoredKey) -> Principal | Ended | None:
        """Return what a secret stands for, None when it is none of the key's."""
        for secret in stored.secrets:
            if self._peppers.matches(parsed.secret, secret.hmac, secret.pepper_version):
                return secret.meaning
        return None

    def _forget(self, mark: bytes) -> None:
        known = self._known.pop(mark, None)
        if known is not None:
            public_id = known.principal.key_public_id
            marks = self._marks[public_id]
            marks.remove(mark)
            if not marks:
                del self._marks[public_id]

    def _stale(self, mark: bytes) -> Principal | None:
        known = self._known.get(mark)
        if known is None or time.monotonic() - known.verified_s > self._policy.stale_s_max:
            return None
        return None if self._expired(known.principal) else known.principal

    @staticmethod
    def _expired(principal: Principal) -> bool:
        return principal.expires_at_s is not None and time.time() >= principal.expires_at_s
