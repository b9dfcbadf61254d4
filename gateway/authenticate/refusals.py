"""Keys that count no longer: why, told to whoever holds the secret, and remembered so that Postgres is asked once.

What a stranger sends is only ever "not valid". Somebody who shows the right secret hears that the key was revoked, has
expired, or was replaced, and the use of a revoked key is passed on: it may have leaked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self, TypeAlias
from uuid import UUID

import structlog

from gateway.errors import InvalidKey

IDS_MAX = 10_000
"""Public ids whose refusal is remembered."""
REFUSALS_PER_ID_MAX = 4
"""Texts of one public id that are remembered: its last secrets, and some that somebody tried."""
REVOKED_USE_INTERVAL_S = 60.0
"""How often the use of one revoked key is passed on by a replica."""
REVOKED_KEYS_MAX = 10_000

OnRevokedUse: TypeAlias = Callable[[UUID, UUID, str, str], None]
"""Told that somebody holds and uses a revoked key: organization id, key id, public id, the client's address.

Called on the path of a request, at most once in REVOKED_USE_INTERVAL_S for each key: it must return at once. What it
raises is logged, and goes no further.
"""

_log = structlog.get_logger("penstock.authenticate")


class Reason(StrEnum):
    """Why a key counts no longer."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    REPLACED = "replaced"
    """It was rotated, and the time is over in which the secret from before counts, too."""
    ORPHANED = "orphaned"
    """Its team or organization was deleted, or its holder was, or has left the team."""


_MESSAGES = {
    Reason.REVOKED: "this API key was revoked{moment}; ask your administrator for a new one",
    Reason.EXPIRED: "this API key expired{moment}; ask your administrator for a new one",
    Reason.REPLACED: "this API key was replaced by a new one, and counts no longer{moment}; use the new one",
    Reason.ORPHANED: "this API key counts no longer: its team is gone, or whoever it was made for has left it",
}


class EndedKey(InvalidKey):
    """A key that counts no longer, shown by somebody who holds its secret."""

    reason = Reason.REVOKED

    @classmethod
    def because(cls, reason: Reason, at_s: float | None) -> Self:
        """Return what is told of a key that has ended for this reason at this Unix time, None: nobody knows when."""
        moment = "" if at_s is None else f" on {datetime.fromtimestamp(at_s, UTC):%Y-%m-%d at %H:%M} UTC"
        if reason is Reason.REPLACED:
            moment = moment.replace(" on ", " since ", 1)
        error = cls(_MESSAGES[reason].format(moment=moment))
        error.reason = reason
        return error


@dataclass(frozen=True, slots=True)
class Ended:
    """Why and since when (Unix time, None: not known) a key counts no longer, and whose it is."""

    reason: Reason
    at_s: float | None
    organization_id: UUID
    key_id: UUID
    public_id: str


class Refusals:
    """What was refused lately, by public id and fingerprint. None: nothing is known of such a key."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._by_id: OrderedDict[str, OrderedDict[bytes, tuple[float, Ended | None]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def remember(self, public_id: str, mark: bytes, ended: Ended | None, now_s: float) -> None:
        """Refuse the text with this fingerprint for a while without asking."""
        refused = self._by_id.setdefault(public_id, OrderedDict())
        refused[mark] = (now_s + self._ttl_s, ended)
        refused.move_to_end(mark)
        while len(refused) > REFUSALS_PER_ID_MAX:
            refused.popitem(last=False)
        self._by_id.move_to_end(public_id)
        while len(self._by_id) > IDS_MAX:
            self._by_id.popitem(last=False)

    def find(self, public_id: str, mark: bytes, now_s: float) -> tuple[bool, Ended | None]:
        """Return whether the text is refused at this time, and what it was."""
        refused = self._by_id.get(public_id)
        until_s, ended = (0.0, None) if refused is None else refused.get(mark, (0.0, None))
        return (True, ended) if until_s > now_s else (False, None)

    def forget(self, public_id: str) -> None:
        """The key was made or changed."""
        self._by_id.pop(public_id, None)

    def clear(self) -> None:
        """Anything may have changed."""
        self._by_id.clear()


class RevokedUses:
    """Passes uses of revoked keys on, each key once in a while."""

    def __init__(self, on_use: OnRevokedUse | None) -> None:
        self._on_use = on_use
        self._told_s: OrderedDict[UUID, float] = OrderedDict()

    def used(self, ended: Ended, address: str) -> None:
        """Somebody has shown a key that counts no longer. Never raises."""
        if self._on_use is None or ended.reason is not Reason.REVOKED:
            return
        now_s = time.monotonic()
        told_s = self._told_s.get(ended.key_id)
        if told_s is not None and now_s - told_s < REVOKED_USE_INTERVAL_S:
            return
        self._told_s[ended.key_id] = now_s
        self._told_s.move_to_end(ended.key_id)
        while len(self._told_s) > REVOKED_KEYS_MAX:
            self._told_s.popitem(last=False)
        try:
            self._on_use(ended.organization_id, ended.key_id, ended.public_id, address)
        except Exception:
            _log.exception("revoked_use_not_told", key=ended.public_id)
