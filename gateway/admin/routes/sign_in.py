"""Signing in over HTTP: what a login needs to know, and an ID token for a session.

Outside /admin/v1, since who comes here is nobody yet.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from gateway import __version__
from gateway.admin.rendering import request_id_of
from gateway.admin.routes.context import Control, Wanted
from gateway.admin.sign_in.pass_through import PassThrough
from gateway.admin.sign_in.people import From
from gateway.admin.sign_in.refusals import ProviderUnavailable
from gateway.admin.sign_in.service import SignIn
from gateway.admin.sign_in.sessions import Session
from gateway.admin.sign_in.tokens import TOKEN_CHARS_MAX
from gateway.errors import NotFound

PREFIX = "/auth"
NONCE_CHARS_MAX = 200

router = APIRouter(prefix=PREFIX, tags=["sign-in"])


class Provider(BaseModel):
    """Where people sign in. Endpoints are absolute, or paths of the gateway where it has the client's secret.

    They are null while the provider does not answer, and the one for devices where it has no device flow.
    """

    issuer: str
    client_id: str
    scopes: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    device_authorization_endpoint: str | None = None


class SignInConfig(BaseModel):
    """How somebody gets a credential of this gateway. `oidc` null: an administrator makes it."""

    version: str
    oidc: Provider | None


class Exchange(Wanted):
    """An ID token, and the nonce that the login was begun with; a device flow has none."""

    id_token: Annotated[str, Field(min_length=1, max_length=TOKEN_CHARS_MAX)]
    nonce: Annotated[str, Field(min_length=1, max_length=NONCE_CHARS_MAX)] | None = None


def _sign_in(request: Request) -> SignIn:
    control: Control = request.app.state.control
    if control.sign_in is None:
        raise NotFound("nobody signs in to this gateway with an identity provider: an administrator makes a key")
    return control.sign_in


SignInDep = Annotated[SignIn, Depends(_sign_in)]


@router.get("/config", operation_id="sign_in_config")
async def config(request: Request) -> SignInConfig:
    """Tell how to sign in. Public; Postgres is not asked."""
    control: Control = request.app.state.control
    sign_in = control.sign_in
    if sign_in is None:
        return SignInConfig(version=__version__, oidc=None)
    client = sign_in.client
    about = {"issuer": sign_in.provider.issuer, "client_id": client.client_id, "scopes": client.scopes}
    try:
        found = await sign_in.provider.metadata()
    except ProviderUnavailable:
        return SignInConfig(version=__version__, oidc=Provider(**about))
    token, device = found.token_endpoint, found.device_authorization_endpoint
    if client.secret is not None:
        token, device = f"{PREFIX}/token", device and f"{PREFIX}/device"
    return SignInConfig(
        version=__version__,
        oidc=Provider(
            **about,
            authorization_endpoint=found.authorization_endpoint,
            token_endpoint=token,
            device_authorization_endpoint=device,
        ),
    )


@router.post("/exchange", operation_id="sign_in")
async def exchange(request: Request, sign_in: SignInDep, wanted: Exchange) -> Session:
    """Take an ID token for a session: an admin credential of the person, who appears here at the first time."""
    control: Control = request.app.state.control
    origin = From(
        control.address_of(request.scope), request.headers.get("user-agent", ""), request_id_of(request.scope)
    )
    return await sign_in.exchange(control.transaction, control.peppers, wanted.id_token, wanted.nonce, origin)


@router.post("/token", operation_id="sign_in_token", response_class=Response)
async def token(request: Request, sign_in: SignInDep) -> Response:
    """Pass a token request on to the identity provider, where the gateway alone has the client's secret."""
    return _passed(*await _secret_holder(sign_in).token(await request.body()))


@router.post("/device", operation_id="sign_in_device", response_class=Response)
async def device(sign_in: SignInDep) -> Response:
    """Ask the identity provider for a device code, where the gateway alone has the client's secret."""
    return _passed(*await _secret_holder(sign_in).device())


def _secret_holder(sign_in: SignIn) -> PassThrough:
    if sign_in.pass_through is None:
        raise NotFound("this gateway's client is public: ask the identity provider's own endpoint")
    return sign_in.pass_through


def _passed(status: int, content: bytes) -> Response:
    return Response(content, status, media_type="application/json")
