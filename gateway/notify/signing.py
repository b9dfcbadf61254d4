"""Signatures of webhooks, as the Standard Webhooks specification has them (https://www.standardwebhooks.com).

The secret of a webhook is derived from a nonce in the database and a pepper outside of it, so that neither alone tells
it and nothing has to be kept that could leak. Without peppers it is only as secret as the database.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.authenticate.key import Peppers

SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, not one
NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class SecretSource:
    """What a secret is derived from."""

    nonce: bytes = field(repr=False)
    pepper_version: int

    def secret(self, peppers: Peppers) -> bytes | None:
        """Return the 32 bytes that sign, None when that pepper is not configured."""
        # No key's secret holds a colon: what is derived here is derived nowhere else.
        return peppers.sign(f"webhook:{self.nonce.hex()}", self.pepper_version)


def new_source(peppers: Peppers) -> SecretSource:
    """Return what a new secret comes from, under the newest pepper."""
    return SecretSource(secrets.token_bytes(NONCE_BYTES), peppers.newest)


def shown(secret: bytes) -> str:
    """Return a secret as people put it into a receiver."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers that a receiver verifies.

    Args:
        keys: the secrets in force, one signature for each: while one is exchanged, two.
        message_id: the same at every attempt, by which a receiver drops what it has had already.
        timestamp_s: when this attempt is made, in Unix time: receivers refuse what is old.
        body: exactly what is sent.
    """
    signed = b".".join((message_id.encode(), str(timestamp_s).encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
