"""The provider's token and device endpoints for clients whose secret only the gateway has (RFC 6749, RFC 8628).

A request passes with nothing but the fields that a login needs, and with the secret; the answer passes as it is. What a
stranger could do with it is what a public client can do anyway: a code needs its PKCE verifier, a device code somebody
who consents.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote_plus

import httpx2
import structlog

from gateway.admin.sign_in.provider import FETCH_TIMEOUT_S, RETRY_INTERVAL_S, bounded_body
from gateway.admin.sign_in.refusals import ProviderUnavailable
from gateway.errors import InvalidRequest, NotFound, Unavailable, reason_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.admin.sign_in.provider import Metadata, Provider

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
FIELDS_OF_GRANT: Final = {
    "authorization_code": ("code", "redirect_uri", "code_verifier"),
    DEVICE_GRANT: ("device_code",),
}
FIELDS_MAX: Final = 20
AT_ONCE_MAX: Final = 8
"""How many requests to the provider one replica passes on at a time; one more gets 503 at once."""

_ACCEPT: Final = {"accept": "application/json"}

_log = structlog.get_logger("penstock.sign_in")


@dataclass(frozen=True, slots=True)
class OidcClient:
    """What the provider knows the gateway as. `secret` None: a public client."""

    client_id: str
    scopes: str
    secret: SecretStr | None = field(default=None, repr=False)


class PassThrough:
    """Passes logins on to one provider, as one client of it."""

    def __init__(self, provider: Provider, client: OidcClient) -> None:
        self._provider = provider
        self._client = client
        self._free = asyncio.Semaphore(AT_ONCE_MAX)

    async def token(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the provider's answer to a token request.

        Raises InvalidRequest, ProviderUnavailable, Unavailable.
        """
        given = _form(body)
        grant = given.get("grant_type", "")
        needed = FIELDS_OF_GRANT.get(grant)
        if needed is None:
            raise InvalidRequest("grant_type must be authorization_code or that of device codes", param="grant_type")
        for name in needed:
            if not given.get(name):
                raise InvalidRequest(f"{name} is required", param=name)
        metadata = await self._provider.metadata()
        return await self._pass(
            metadata, metadata.token_endpoint, {"grant_type": grant} | {name: given[name] for name in needed}
        )

    async def device(self) -> tuple[int, bytes]:
        """Return status and body of the provider's answer to a request for a device code.

        Raises NotFound where there is no device flow, ProviderUnavailable, Unavailable.
        """
        metadata = await self._provider.metadata()
        if metadata.device_authorization_endpoint is None:
            raise NotFound("the identity provider has no device flow")
        return await self._pass(metadata, metadata.device_authorization_endpoint, {"scope": self._client.scopes})

    async def _pass(self, metadata: Metadata, endpoint: str, fields: dict[str, str]) -> tuple[int, bytes]:
        secret = self._client.secret
        assert secret is not None, "nothing is passed on for a public client"
        client_id, known = self._client.client_id, secret.get_secret_value()
        own, basic = {"client_id": client_id}, None
        if metadata.secret_in_body:
            own["client_secret"] = known
        else:
            basic = httpx2.BasicAuth(quote_plus(client_id), quote_plus(known))  # as RFC 6749, section 2.3.1, wants it
        if self._free.locked():
            raise Unavailable("too many logins at once", retry_after_s=RETRY_INTERVAL_S)
        try:
            async with (
                self._free,
                asyncio.timeout(FETCH_TIMEOUT_S),
                self._provider.client() as client,
                client.stream("POST", endpoint, data=fields | own, headers=_ACCEPT, auth=basic) as answer,
            ):
                content = await bounded_body(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            _log.warning("provider_unavailable", issuer=self._provider.issuer, reason=reason_of(error)[:300])
            raise ProviderUnavailable(retry_after_s=RETRY_INTERVAL_S) from None
        return answer.status_code, content


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise InvalidRequest("the body must be a form: application/x-www-form-urlencoded") from None
