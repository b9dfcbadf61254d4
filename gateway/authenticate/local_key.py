"""Without keys (`auth: none`) every request stands for one key: that of the organization `local`.

The key is a row like any other, so its tenant's limits hold, changes are heard, and what is used is the organization's.
Nobody has its secret: each process puts one in its place that it has made up, and takes every request to show that.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from gateway.authenticate.key import Peppers, rotated_key
from gateway.authenticate.key_store import Secret, StoredKey

if TYPE_CHECKING:
    from gateway.authenticate.authenticator import FindsKeys

_PEPPER_BYTES = 32


class LocalKey:
    """A store of the one key, for an `Authenticator` with these `peppers`, and what every request shows to it."""

    def __init__(self, public_id: str, store: FindsKeys) -> None:
        self.peppers = Peppers({1: secrets.token_bytes(_PEPPER_BYTES)})
        self._store = store
        self._key = rotated_key(self.peppers, public_id)

    def token_of(self, headers: dict[bytes, bytes]) -> str:
        """Return the token that stands for a request, whatever token it has or has not."""
        del headers
        return self._key.text

    async def find(self, public_id: str) -> StoredKey | None:
        """Return the key as it is now. Raises KeyStoreUnavailable."""
        stored = await self._store.find(public_id)
        if stored is None:
            return None
        return StoredKey((Secret(stored.secrets[0].meaning, self._key.secret_hmac, self._key.pepper_version),))

    def __repr__(self) -> str:
        return f"LocalKey({self._key.public_id})"
