"""An ID token (OpenID Connect Core 1.0, section 3.1.3.7), held against all that has to be true of it.

The signature's algorithm is one of those that need the provider's private key: `none` and the HMAC family, for which a
public key would do as the secret, are refused before any key is looked at. No message quotes a token or a claim.
"""

from __future__ import annotations

import hmac
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from authlib.oidc.core import IDToken
from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jws import JWSRegistry

from gateway.admin.sign_in.refusals import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwk import Key

    from gateway.admin.sign_in.provider import Provider

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
SKEW_S: Final = 60
"""How far the clocks of provider and gateway may be apart."""
TOKEN_CHARS_MAX: Final = 32 * 1024
HEADER_BYTES_MAX: Final = 8 * 1024
SUBJECT_CHARS_MAX: Final = 255
GROUPS_MAX: Final = 1_000
GROUP_CHARS_MAX: Final = 500
TEXT_CHARS_MAX: Final = 320
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, or a program, as the provider knows it. `groups_told`: whether the token says anything of groups."""

    issuer: str
    subject: str
    name: str
    email: str | None
    groups: tuple[str, ...]
    groups_told: bool
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """What tokens have to be made out to. `audience` is a further one, for tokens that automation shows itself."""

    client_id: str
    groups_claim: str
    audience: str | None = None


async def verified(provider: Provider, token: str, expected: Expected, *, nonce: str | None = None) -> Identity:
    """Return whom an ID token proves, that was got for this client and, if one was sent, with this nonce.

    Raises:
        InvalidToken: anything is wrong with it.
        ProviderUnavailable: the provider's keys are not known.
    """
    claims = await _signed(provider, token)
    _check(claims, provider.issuer, expected.client_id)
    shown = claims.get("nonce")
    if (nonce is None) != (shown is None) or not hmac.compare_digest(str(shown).encode(), str(nonce).encode()):
        raise InvalidToken("the ID token was not got for this login: its nonce is another")
    return _identity(claims, provider.issuer, expected)


async def verified_bearer(provider: Provider, token: str, expected: Expected) -> Identity:
    """Return whom a token proves that is shown with every request: an ID token, or a JWT for `expected.audience`.

    Raises as `verified` does.
    """
    claims = await _signed(provider, token)
    audiences = claims.get("aud")
    meant_for = audiences if isinstance(audiences, list) else [audiences]
    further = expected.audience is not None and expected.audience in meant_for
    _check(claims, provider.issuer, None if further else expected.client_id)
    return _identity(claims, provider.issuer, expected)


async def _signed(provider: Provider, token: str) -> dict[str, Any]:
    """Return the claims of a token that the provider has signed."""
    header = _header(token)
    kid = header.get("kid")
    keys = await provider.keys(kid if isinstance(kid, str) else None)
    if not keys:
        raise InvalidToken("the token is signed with a key that the identity provider does not have")
    for key in keys:
        payload = _payload(token, key)
        if payload is not None:
            try:
                return msgspec.json.decode(payload, type=dict[str, Any])
            except msgspec.DecodeError:
                raise InvalidToken("the token's claims are no JSON object") from None
    raise InvalidToken("the token's signature is wrong")


def _header(token: str) -> dict[str, Any]:
    """Return the header of a token whose algorithm may count at all; nothing of it is believed yet."""
    if len(token) > TOKEN_CHARS_MAX or token.count(".") != 2 or not token.isascii():
        raise InvalidToken("this is no ID token")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError):
        raise InvalidToken("this is no ID token") from None
    if header.get("alg") not in ALGORITHMS:
        raise InvalidToken("the token is not signed with an algorithm of public keys")
    if str(header.get("typ", "JWT")).lower() not in _TYPES:
        raise InvalidToken("this is a token of another kind")
    return header


def _payload(token: str, key: Key) -> bytes | None:
    """Return what was signed with this key, None when it was not."""
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    registry.max_header_length = HEADER_BYTES_MAX
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EdDSA being called Ed25519 now: providers will say it for years
            return jws.deserialize_compact(token, key, registry=registry).payload
    except (JoseError, ValueError, TypeError):
        return None


def _check(claims: dict[str, Any], issuer: str, client_id: str | None) -> None:
    """Hold the claims against time, issuer and audience; `client_id` None: the audience was looked at already."""
    if "events" in claims:  # a logout token looks like an ID token otherwise
        raise InvalidToken("this is a token of another kind")
    options: dict[str, Any] = {"iss": {"essential": True, "value": issuer}, "sub": {"essential": True}}
    if client_id is not None:
        options["aud"] = {"essential": True, "values": [client_id]}
    try:
        IDToken(claims, {}, options, {"client_id": client_id}).validate(now=int(time.time()), leeway=SKEW_S)
    except ExpiredTokenError:
        raise InvalidToken("the token has expired; sign in again") from None
    except (InvalidClaimError, MissingClaimError) as error:
        raise InvalidToken(f"the token's claim '{error.claim}' is missing or wrong") from None
    except (JoseError, ValueError, TypeError, OverflowError):
        raise InvalidToken("the token's claims are wrong") from None


def _identity(claims: dict[str, Any], issuer: str, expected: Expected) -> Identity:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= SUBJECT_CHARS_MAX or not subject.isprintable():
        raise InvalidToken("the token's claim 'sub' is missing or wrong")
    told = claim_at(claims, expected.groups_claim)
    listed = [told] if isinstance(told, str) else told if isinstance(told, list) else []
    groups = tuple(one for one in listed if isinstance(one, str) and 1 <= len(one) <= GROUP_CHARS_MAX)
    if len(groups) > GROUPS_MAX:
        raise InvalidToken(f"the token lists more than {GROUPS_MAX} groups")
    names = ("preferred_username", "email", "name", "client_id")
    email = _text(claims.get("email"))
    return Identity(
        issuer=issuer,
        subject=subject,
        name=next((name for claim in names if (name := _text(claims.get(claim)))), subject),
        email=email if claims.get("email_verified", True) is not False else None,
        groups=groups,
        groups_told=told is not None,
        claims=claims,
    )


def claim_at(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by the path of names that dots make of it; None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(value: object) -> str | None:
    """Return a claim as one line of text, None when it is none."""
    if not isinstance(value, str):
        return None
    line = "".join(char for char in value if char.isprintable()).strip()[:TEXT_CHARS_MAX]
    return line or None
