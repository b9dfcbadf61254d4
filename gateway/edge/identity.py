"""What a request says of its sender: its token and its address, and whether the token may come from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.addresses import TrustedProxies, is_within, parse_address
from gateway.errors import AddressNotAllowed, InvalidKey

if TYPE_CHECKING:
    from gateway.domain.addresses import Network
    from gateway.domain.principal import Principal
    from gateway.edge.asgi import Scope
    from gateway.edge.stages import Stages

TOKEN_CHARS_MAX = 512


def token_of(headers: dict[bytes, bytes]) -> str:
    """Return the token of `Authorization: Bearer` or `x-api-key`. Raises InvalidKey when there is none."""
    value = headers.get(b"authorization")
    if value is not None:
        scheme, _, token = value.partition(b" ")
        if scheme.lower() == b"bearer":
            return _token(token.strip())
    value = headers.get(b"x-api-key")
    if value is not None:
        return _token(value.strip())
    raise InvalidKey("no API key; send it as 'Authorization: Bearer sk-pst-…'")


async def identify(stages: Stages, scope: Scope, headers: dict[bytes, bytes]) -> Principal:
    """Return who sends a request, for endpoints that admit nothing; `Completions` takes the same steps itself.

    Raises InvalidKey, KeyStoreUnavailable, AddressNotAllowed.
    """
    token = stages.token_of(headers)
    principal = stages.authenticator.cached(token)
    if principal is None:
        principal = await stages.authenticator.authenticate(token, address_of(scope, stages.proxies))
    if principal.addresses_allowed is not None:
        require_address(principal.addresses_allowed, scope, stages.proxies)
    return principal


def address_of(scope: Scope, proxies: TrustedProxies) -> str:
    """Return the client's address, the peer's unless that is a trusted proxy; empty when it has none."""
    client = scope.get("client")
    return proxies.client_of(str(client[0]) if client else "", scope["headers"])


def require_address(allowed: tuple[Network, ...], scope: Scope, proxies: TrustedProxies) -> None:
    """Raise AddressNotAllowed unless the client's address lies in one of the networks."""
    address = address_of(scope, proxies)
    if not is_within(parse_address(address), allowed):
        seen = address or "an unknown address"
        raise AddressNotAllowed(
            f"this API key may not be used from {seen}; use it from where it is allowed, or ask your administrator to"
            " allow this address for it"
        )


def _token(value: bytes) -> str:
    if not value or len(value) > TOKEN_CHARS_MAX:
        raise InvalidKey("the API key is not valid")
    return value.decode("latin-1")
