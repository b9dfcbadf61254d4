"""How somebody proves who it is to the identity provider that a gateway names: a device code, or its own browser.

The device flow (RFC 8628) shows a code to type anywhere; the browser flow is the authorization code with PKCE (RFC
7636) and a listener on the loopback (RFC 8252). Both end in an ID token for the gateway.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urljoin

import msgspec
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway.cli.answers import printable
from gateway.cli.login_browser import Answered, Listener, show
from gateway.errors import GatewayError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.cli.connection import Connection

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
POLL_INTERVAL_S: Final = 5.0
SLOW_DOWN_S: Final = 5.0
POLL_INTERVAL_S_MAX: Final = 60.0
POLL_FAILURES_MAX: Final = 5
"""How many polls in a row may fail to reach the provider."""
LOGIN_WAIT_S_MAX: Final = 900.0
VERIFIER_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class Provider:
    """What the gateway tells of its identity provider, endpoints as absolute addresses."""

    issuer: str
    client_id: str
    scopes: str
    authorization_endpoint: str
    token_endpoint: str
    device_authorization_endpoint: str | None


@dataclass(frozen=True, slots=True)
class Proof:
    """What the gateway takes for a session; `nonce` where the login was begun with one."""

    id_token: str
    nonce: str | None = None


def provider_of(url: str, told: dict[str, Any]) -> Provider:
    """Return the provider that the gateway at `url` tells of; its own endpoints are paths. Raises Unavailable."""

    def absolute(name: str) -> str | None:
        return None if told.get(name) is None else urljoin(f"{url}/", str(told[name]))

    authorization, token = absolute("authorization_endpoint"), absolute("token_endpoint")
    if authorization is None or token is None:
        raise Unavailable(f"the identity provider of {url} does not answer; try again later")
    return Provider(
        printable(str(told["issuer"])),
        str(told["client_id"]),
        str(told["scopes"]),
        authorization,
        token,
        absolute("device_authorization_endpoint"),
    )


def by_device(
    provider: Provider, connection: Connection, tell: Callable[[str], None], wait: Callable[[float], None] = time.sleep
) -> Proof:
    """Log in with a code that is typed in any browser. Raises GatewayError when it was refused or has lapsed."""
    device = _begun(provider, connection)
    tell(f"To log in, open {printable(device.verification_uri)} and enter the code {printable(device.user_code)}")
    if device.verification_uri_complete:
        tell(f"or open {printable(device.verification_uri_complete)}")
    deadline_s = time.monotonic() + min(device.expires_in, LOGIN_WAIT_S_MAX)
    poll = {"grant_type": DEVICE_GRANT, "client_id": provider.client_id, "device_code": device.device_code}
    interval_s, failures = max(1.0, min(device.interval, POLL_INTERVAL_S_MAX)), 0
    while time.monotonic() + interval_s < deadline_s:
        wait(interval_s)
        try:
            status, answer = connection.form(provider.token_endpoint, poll)
        except Unavailable:
            failures += 1
            if failures >= POLL_FAILURES_MAX:
                raise
            interval_s = min(interval_s * 2, POLL_INTERVAL_S_MAX)  # as RFC 8628, section 3.5, wants it
            continue
        failures = 0
        if status == 200:
            return Proof(_id_token(answer))
        error = answer.get("error") if isinstance(answer, dict) else None
        if error == "slow_down":
            interval_s = min(interval_s + SLOW_DOWN_S, POLL_INTERVAL_S_MAX)
        elif error != "authorization_pending":
            raise _refused(answer)
    raise GatewayError("nobody has entered the code in time; log in again")


def _begun(provider: Provider, connection: Connection) -> _Device:
    assert provider.device_authorization_endpoint is not None, "asked before"
    asked = {"client_id": provider.client_id, "scope": provider.scopes}
    status, begun = connection.form(provider.device_authorization_endpoint, asked)
    if status != 200:
        raise _refused(begun)
    if isinstance(begun, dict) and "verification_uri" not in begun:
        begun["verification_uri"] = begun.get("verification_url")  # as Google called it before there was an RFC
    try:
        return msgspec.convert(begun, _Device)
    except msgspec.ValidationError:
        raise GatewayError("the identity provider's answer is no device code") from None


def by_browser(provider: Provider, connection: Connection, tell: Callable[[str], None], port: int) -> Proof:
    """Log in with the browser of this machine. Raises GatewayError when it was refused, or nothing came in time."""
    state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    verifier = secrets.token_urlsafe(VERIFIER_BYTES)
    with Listener(port, state, provider.issuer) as listener:
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": listener.address,
            "scope": provider.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        separator = "&" if "?" in provider.authorization_endpoint else "?"
        page = f"{provider.authorization_endpoint}{separator}{urlencode(asked)}"
        tell(f"To log in, open {printable(page)}")
        show(page)
        answered: Answered = listener.wait(LOGIN_WAIT_S_MAX)
        redirect_uri = listener.address
    if answered.code is None:
        raise _refused({"error": answered.error})
    fields = {
        "grant_type": "authorization_code",
        "client_id": provider.client_id,
        "code": answered.code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    status, answer = connection.form(provider.token_endpoint, fields)
    if status != 200:
        raise _refused(answer)
    return Proof(_id_token(answer), nonce)


class _Device(msgspec.Struct):
    """An answer of RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    verification_uri_complete: str | None = None
    interval: float = POLL_INTERVAL_S


def _id_token(answer: object) -> str:
    token = answer.get("id_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token:
        raise GatewayError("the identity provider gave no ID token: the scope openid is missing")
    return token


def _refused(answer: object) -> GatewayError:
    told = answer if isinstance(answer, dict) else {}
    words = [str(told[name]) for name in ("error", "error_description", "detail") if told.get(name)]
    return GatewayError(f"the login was refused: {printable(': '.join(words) or 'without a reason')[:500]}")
