"""What an identity provider says of itself (OpenID Connect Discovery 1.0) and the keys that it signs with (RFC 7517).

Both are fetched when they are needed first and remembered for an hour. A token whose key is not among them makes the
keys be read again, at most every ten seconds whatever comes, so a provider may change its keys at any time and nobody
can make the gateway ask it endlessly. While the provider is away, what was read within the last day goes on.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from gateway.admin.sign_in.refusals import ProviderUnavailable
from gateway.errors import reason_of
from gateway.settings.sign_in import LOOPBACK_HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from joserfc.jwk import Key

ANSWER_BYTES_MAX: Final = 256 * 1024
FETCH_TIMEOUT_S: Final = 5.0
FRESH_S: Final = 3600.0
"""How long what was read is used without asking again."""
STALE_S_MAX: Final = 86_400.0
"""How long it is used while the provider does not answer."""
UNKNOWN_KEY_INTERVAL_S: Final = 10.0
"""How often unknown keys make the keys be read again."""
RETRY_INTERVAL_S: Final = 2.0
"""How long after a fetch that failed nobody tries again."""
KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2048

_log = structlog.get_logger("penstock.sign_in")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What discovery tells. `device_authorization_endpoint` None: the provider has no device flow (RFC 8628)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str | None = None
    secret_in_body: bool = False
    """Whether a client's secret may stand in the body of a request; else it is its password (RFC 6749, 2.3.1)."""


@dataclass(frozen=True, slots=True)
class _Known:
    metadata: Metadata
    keys: tuple[Key, ...]
    read_s: float


class Provider:
    """One issuer. Its address is compared letter by letter with what it says of itself."""

    def __init__(self, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        # Made once: reading the system's certificates takes time that a request in flight would wait for.
        self.trust = ssl.create_default_context()
        self._clock = clock
        self._known: _Known | None = None
        self._failed_s: float | None = None
        self._asked_for_unknown_s: float | None = None
        self._turn = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """Return what discovery tells. Raises ProviderUnavailable."""
        return (await self._current()).metadata

    async def keys(self, kid: str | None) -> tuple[Key, ...]:
        """Return the keys that may have signed a token: the one of this id, or all when a token names none.

        Nothing is returned for an id that the provider does not have. Raises ProviderUnavailable.
        """
        known = await self._current()
        found = _matching(known.keys, kid)
        if found or not self._may_ask_again():
            return found
        self._asked_for_unknown_s = self._clock()
        async with self._turn:
            if self._known is known:  # nobody else has read them while this waited
                await self._read()
        assert self._known is not None, "it was read once"
        return _matching(self._known.keys, kid)

    async def _current(self) -> _Known:
        if self._known is None or self._age_s(self._known) >= FRESH_S:
            async with self._turn:
                if self._known is None or self._age_s(self._known) >= FRESH_S:
                    await self._read()
        known = self._known
        if known is None or self._age_s(known) >= STALE_S_MAX:
            raise ProviderUnavailable(retry_after_s=RETRY_INTERVAL_S)
        return known

    def _age_s(self, known: _Known) -> float:
        return self._clock() - known.read_s

    def _may_ask_again(self) -> bool:
        asked_s = self._asked_for_unknown_s
        return asked_s is None or self._clock() - asked_s >= UNKNOWN_KEY_INTERVAL_S

    async def _read(self) -> None:
        """Read everything anew; what is known stays when that fails, which is said once in a while in the log."""
        if self._failed_s is not None and self._clock() - self._failed_s < RETRY_INTERVAL_S:
            return
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S), self.client() as client:
                metadata = _metadata(await _document(client, _discovery_address(self.issuer)), self.issuer)
                keys = _keys(await _document(client, metadata.jwks_uri))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            self._failed_s = self._clock()
            _log.warning("provider_unavailable", issuer=self.issuer, reason=reason_of(error)[:300])
            return
        self._failed_s = None
        self._known = _Known(metadata, keys, self._clock())

    def client(self) -> httpx2.AsyncClient:
        """Return a client for one conversation with the provider, to be closed."""
        # A proxy of the environment is for what lies outside; who stands on this machine is asked directly.
        outside = urlsplit(self.issuer).hostname not in LOOPBACK_HOSTS
        return httpx2.AsyncClient(verify=self.trust, timeout=FETCH_TIMEOUT_S, trust_env=outside)


async def bounded_body(response: httpx2.Response) -> bytes:
    """Return the body of a streamed answer. Raises ValueError when it is larger than ANSWER_BYTES_MAX."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


async def _document(client: httpx2.AsyncClient, address: str) -> dict[str, Any]:
    async with client.stream("GET", address, headers={"accept": "application/json"}) as response:
        if response.status_code != 200:
            raise ValueError(f"the answer of {address} is {response.status_code}")
        return msgspec.json.decode(await bounded_body(response), type=dict[str, Any])


def _discovery_address(issuer: str) -> str:
    return f"{issuer.removesuffix('/')}/.well-known/openid-configuration"


def _metadata(document: dict[str, Any], issuer: str) -> Metadata:
    """Return what a discovery document tells. Raises ValueError when it is of another issuer, or lacks something."""
    if document.get("issuer") != issuer:
        raise ValueError("it calls itself by another issuer: oidc_issuer must be what it says, letter by letter")
    plain = urlsplit(issuer).scheme == "http"
    device = document.get("device_authorization_endpoint")
    return Metadata(
        authorization_endpoint=_endpoint(document, "authorization_endpoint", plain=plain),
        token_endpoint=_endpoint(document, "token_endpoint", plain=plain),
        jwks_uri=_endpoint(document, "jwks_uri", plain=plain),
        device_authorization_endpoint=(
            None if device is None else _endpoint(document, "device_authorization_endpoint", plain=plain)
        ),
        secret_in_body="client_secret_post" in (document.get("token_endpoint_auth_methods_supported") or ()),
    )


def _endpoint(document: dict[str, Any], name: str, *, plain: bool) -> str:
    address = document.get(name)
    if not isinstance(address, str) or not address.startswith(("https://", "http://") if plain else "https://"):
        raise ValueError(f"its {name} is missing, or does not begin with https://")
    return address


def _keys(document: dict[str, Any]) -> tuple[Key, ...]:
    """Return the public signing keys of a key set; keys of other kinds are left out (RFC 7517, section 5)."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError(f"its key set has no list of at most {KEYS_MAX} keys")
    return tuple(key for entry in listed if (key := _key(entry)) is not None)


def _key(entry: object) -> Key | None:
    """Return a public key, None for one that signs no tokens here: of another kind, too short, or damaged."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if isinstance(key, RSAKey):
        return key if key.public_key.key_size >= RSA_BITS_MIN else None
    return key if isinstance(key, ECKey | OKPKey) else None


def _matching(keys: tuple[Key, ...], kid: str | None) -> tuple[Key, ...]:
    return keys if kid is None else tuple(key for key in keys if key.kid == kid)
