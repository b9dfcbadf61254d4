"""How every request of the control plane is served: the caller recognised, one transaction, and who it was in the log.

A route's function is called inside the transaction and never commits: what it raises takes everything back, and the
answer leaves only when everything is durable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from gateway.admin.caller import Caller, set_actor
from gateway.admin.credentials import verify_admin_credential
from gateway.admin.idempotency import IDEMPOTENCY_KEY, Repeatable
from gateway.admin.rendering import request_id_of
from gateway.admin.routes.tags import entity_tag, matches
from gateway.authenticate.key import ADMIN_PREFIX, parse_key
from gateway.errors import InvalidKey, InvalidRequest, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi.dependencies.models import Dependant

    from gateway.admin.database import Database
    from gateway.admin.routes.context import Control
    from gateway.admin.scope import Scope

TOKEN_CHARS_MAX = 16_384
"""Tokens of identity providers are long when somebody is in many groups."""

PARAMETER_CHARS_MAX = 100
"""How much of an unknown parameter's name is told."""

CALLER = "penstock.caller"
"""Where an ASGI scope holds a caller that needs no token: only who calls in-process can put it there."""

T = TypeVar("T")

_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Admin:
    """One request: its transaction, who makes it, and how far that one sees."""

    db: Database
    caller: Caller
    control: Control
    request: Request
    response_headers: dict[str, str]

    @property
    def scope(self) -> Scope:
        """How far the caller sees."""
        return self.caller.scope

    def tagged(self, resource: T) -> T:
        """Return one thing as it is answered, and let the answer carry its ETag."""
        self.response_headers["etag"] = entity_tag(resource)
        return resource

    def check_match(self, resource: object) -> None:
        """Hold the request's If-Match, if it has one, against the thing as it is, read for update.

        Raises PreconditionFailed.
        """
        wanted = self.request.headers.get("if-match")
        if wanted is not None and not matches(wanted, entity_tag(resource)):
            raise PreconditionFailed("it was changed meanwhile: read it again, and apply your change to what it is now")


def _admin(request: Request) -> Admin:
    admin: Admin = request.state.admin
    return admin


_bearer = HTTPBearer(
    auto_error=False,
    description="An admin key (`penstock bootstrap`, `penstock admin-key create`, `penstock login`), or an ID token.",
)
_documented = Depends(_bearer)  # read before any route runs; here it makes the OpenAPI document say so

AdminDep: TypeAlias = Annotated[Admin, Depends(_admin)]


class AdminRoute(APIRoute):
    """A route whose function runs as the caller, in one transaction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["dependencies"] = [*(kwargs.get("dependencies") or ()), _documented]
        super().__init__(*args, **kwargs)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request of this route."""
        handle = super().get_route_handler()
        parameters = _query_parameters(self.dependant)

        async def serve(request: Request) -> Response:
            control: Control = request.app.state.control
            recognise = await _recogniser(control, request)
            async with control.transaction(readonly=request.method in _READS) as db:
                caller = await recognise(db)
                _check_query(request, parameters)
                admin = request.state.admin = Admin(db, caller, control, request, {})

                async def answer() -> Response:
                    return _with_headers(await handle(request), admin, request)

                if request.method in _READS:
                    return await answer()
                await set_actor(
                    db,
                    caller,
                    address=control.address_of(request.scope),
                    agent=request.headers.get("user-agent", ""),
                    request_id=request_id_of(request.scope),
                )
                key = request.headers.get(IDEMPOTENCY_KEY) if request.method == "POST" else None
                if key is None:
                    return await answer()
                repeatable = await Repeatable.of(caller, key, request)
                return await repeatable.once(db, answer)

        return serve


def _query_parameters(dependant: Dependant) -> frozenset[str]:
    """Return the names of all query parameters that a route reads, through what it depends on, too."""
    own: set[str] = set()
    for parameter in dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):  # each of its fields is a parameter
            own.update(field.alias or name for name, field in kind.model_fields.items())
        else:
            own.add(parameter.alias)
    return frozenset(own.union(*map(_query_parameters, dependant.dependencies)))


def _check_query(request: Request, parameters: frozenset[str]) -> None:
    """Raise InvalidRequest for a parameter that is not read: a misspelt filter would let everything through."""
    for name in request.query_params:
        if name not in parameters:
            known = ", ".join(sorted(parameters)) or "none"
            shown = name[:PARAMETER_CHARS_MAX].encode("unicode_escape").decode()
            raise InvalidRequest(f"{shown} is not a known query parameter; there are: {known}", param=shown)


async def _recogniser(control: Control, request: Request) -> Callable[[Database], Coroutine[Any, Any, Caller]]:
    """Return what recognises the caller inside the transaction, having done what needs no database.

    Raises InvalidKey before a connection is taken where that is possible.
    """
    trusted: Caller | None = request.scope.get(CALLER)
    if trusted is not None:

        async def as_told(_db: Database) -> Caller:
            return trusted

        return as_told
    token = _token(request)
    if parse_key(token, ADMIN_PREFIX) is not None:
        return lambda db: verify_admin_credential(db, control.peppers, token)
    if control.sign_in is not None and token.count(".") == 2:
        sign_in = control.sign_in
        identity = await sign_in.verify(token)
        return lambda db: sign_in.caller(db, identity)
    raise InvalidKey("not a valid admin key")


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise InvalidKey("no admin key; send it as 'Authorization: Bearer adm-pst-…'")
    if len(token) > TOKEN_CHARS_MAX:
        raise InvalidKey("not a valid admin key")
    return token


def _with_headers(response: Response, admin: Admin, request: Request) -> Response:
    """Add what the route has said of its answer; an unchanged thing is not sent again."""
    response.headers.update(admin.response_headers)
    known = request.headers.get("if-none-match")
    tag = admin.response_headers.get("etag")
    if known is not None and tag is not None and request.method in _READS and matches(known, tag):
        return Response(status_code=304, headers={"etag": tag})
    return response
