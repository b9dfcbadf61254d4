"""The format of a key and how its secret is kept: `sk-pst-<public id>_<secret><check>`.

The public id names and finds the key; the secret has 190 bits; the check is a CRC-32, so that a typo never reaches the
database and a scanner can tell a leaked key from a random string. Only an HMAC of the secret is stored.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import zlib
from dataclasses import dataclass, field
from hashlib import sha256

KEY_PREFIX = "sk-pst-"
ADMIN_PREFIX = "adm-pst-"

PUBLIC_ID_CHARS = 16
SECRET_CHARS = 32
CHECK_CHARS = 6

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALPHABET_SET = frozenset(_ALPHABET)
_NO_PEPPER = b"penstock: no pepper configured"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key that is well-formed; whether it is known is another question. The secret is kept out of the repr."""

    public_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is shown once and never stored."""

    public_id: str
    text: str = field(repr=False)
    secret_hmac: bytes = field(repr=False)
    pepper_version: int


class Peppers:
    """Secrets outside the database that stored hashes depend on, by version; the highest version signs new keys.

    Without any, version 0 is used: an HMAC under a constant. That is safe against guessing (a secret has 190 bits) but
    lets whoever can write to the database make keys. Once a pepper is configured, version 0 is refused.
    """

    __slots__ = ("_by_version", "newest")

    def __init__(self, by_version: dict[int, bytes]) -> None:
        self._by_version = dict(by_version) or {0: _NO_PEPPER}
        self.newest = max(self._by_version)

    @classmethod
    def parse(cls, text: str) -> Peppers:
        """Read `1:<base64>,2:<base64>`. Raises ValueError, never quoting a secret, when it is malformed."""
        by_version: dict[int, bytes] = {}
        for position, part in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
            version, separator, encoded = part.partition(":")
            number = int(version) if version.isascii() and version.isdigit() and len(version) <= 5 else 0
            if not separator or not 1 <= number <= 32767:
                raise ValueError(f"pepper {position} must look like VERSION:BASE64 with a version from 1 to 32767")
            try:
                pepper = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError(f"pepper {position} is not base64") from None
            if len(pepper) < 32:
                raise ValueError(f"pepper {position} is shorter than 32 bytes; make one with: openssl rand -base64 32")
            if number in by_version:
                raise ValueError(f"pepper version {number} is given twice")
            by_version[number] = pepper
        return cls(by_version)

    def sign(self, secret: str, version: int) -> bytes | None:
        """Return the 32-byte HMAC-SHA-256 of a secret, None when that version is not configured."""
        pepper = self._by_version.get(version)
        return None if pepper is None else hmac.digest(pepper, secret.encode(), "sha256")

    def matches(self, secret: str, secret_hmac: bytes, version: int) -> bool:
        """Compare in constant time."""
        signed = self.sign(secret, version)
        return signed is not None and hmac.compare_digest(signed, secret_hmac)

    def __repr__(self) -> str:
        return f"Peppers(versions={sorted(self._by_version)})"


def make_key(peppers: Peppers, prefix: str = KEY_PREFIX) -> NewKey:
    """Make a key under the newest pepper."""
    return _made(peppers, prefix, _random(PUBLIC_ID_CHARS))


def rotated_key(peppers: Peppers, public_id: str, prefix: str = KEY_PREFIX) -> NewKey:
    """Make a new secret for a key that keeps its public id."""
    return _made(peppers, prefix, public_id)


def _made(peppers: Peppers, prefix: str, public_id: str) -> NewKey:
    secret = _random(SECRET_CHARS)
    signed = peppers.sign(secret, peppers.newest)
    assert signed is not None, "the newest version is configured"
    text = f"{prefix}{public_id}_{secret}{_check(prefix, public_id, secret)}"
    return NewKey(public_id, text, signed, peppers.newest)


def parse_key(text: str, prefix: str = KEY_PREFIX) -> ParsedKey | None:
    """Return the parts of a key, None when it is not one (wrong prefix, length, alphabet or check)."""
    if len(text) != len(prefix) + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECK_CHARS or not text.startswith(prefix):
        return None
    public_id, separator, rest = text[len(prefix) :].partition("_")
    secret = rest[:SECRET_CHARS]
    if len(public_id) != PUBLIC_ID_CHARS or not separator or not _ALPHABET_SET.issuperset(public_id + rest):
        return None
    if rest[SECRET_CHARS:] != _check(prefix, public_id, secret):
        return None
    return ParsedKey(public_id, secret)


def fingerprint(token: str) -> bytes:
    """Return what a whole token is cached under: its SHA-256, so that no plain key stays in memory."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _random(chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(chars))


def _check(prefix: str, public_id: str, secret: str) -> str:
    number = zlib.crc32(f"{prefix}{public_id}_{secret}".encode())
    digits = ""
    for _ in range(CHECK_CHARS):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
