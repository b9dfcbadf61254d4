"""Errors of the control-plane API as HTTP: problem documents (RFC 9457), whatever raised them.

What validation says is kept to the field and a sentence; values that were sent are never quoted.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import compile_path

from gateway.errors import GatewayError, InternalError, InvalidKey, InvalidRequest, MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import Scope

FIELD_CHARS_MAX = 100
PROBLEM: Final = "application/problem+json"
REQUEST_ID: Final = "penstock.request_id"
"""Where an ASGI scope of the control plane holds the request's id."""

_PLAINLY: Final = {"extra_forbidden": "is not a known field", "missing": "is missing"}


def request_id_of(scope: Scope) -> str:
    """Return the id of the request with this ASGI scope."""
    return str(scope.get(REQUEST_ID, ""))


def problem(error: GatewayError, request_id: str = "") -> JSONResponse:
    """Return the answer that tells an error: a problem document of RFC 9457."""
    headers: dict[str, str] = {"x-should-retry": "false"} if error.permanent else {}
    if isinstance(error, InvalidKey):
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    body = {
        "type": f"urn:penstock:problem:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "instance": f"urn:uuid:{request_id}",
        "code": error.code,
        "param": error.param,
    }
    return JSONResponse(body, error.status, headers, PROBLEM)


def install(app: FastAPI) -> None:
    """Make every error of `app` a GatewayError's answer."""

    async def gateway_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, GatewayError), "registered for these"
        return problem(error, request_id_of(request.scope))

    async def validation_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError), "registered for these"
        return problem(from_validation(error), request_id_of(request.scope))

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException), "registered for these"
        answer = problem(_from_status(request, error.status_code), request_id_of(request.scope))
        if error.status_code == MethodNotAllowed.status:
            answer.headers["allow"] = ", ".join(sorted(_methods_at(request)))
        return answer

    app.add_exception_handler(GatewayError, gateway_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)


def from_validation(error: RequestValidationError) -> InvalidRequest:
    """Return the first thing that is wrong with a request, naming its field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not valid JSON")
    field = ".".join(str(step) for step in first["loc"][1:])
    # A field's name may come from the caller: nothing unprintable, nothing endless.
    field = field[:FIELD_CHARS_MAX].encode("unicode_escape").decode()
    if not field:
        return InvalidRequest("the body must be a JSON object, sent as application/json")
    message = _PLAINLY.get(first["type"], f"is wrong: {first['msg']}")
    return InvalidRequest(f"{field} {message}", param=field)


def _methods_at(request: Request) -> set[str]:
    """Return what the address may be asked with; the framework's own answer names the first route's methods alone."""
    app: FastAPI = request.app
    operations = {**app.openapi()["paths"], app.openapi_url: ("get", "head")}
    return {
        method.upper()
        for template, methods in operations.items()
        if compile_path(template)[0].match(request.scope["path"])
        for method in methods
    }


def _from_status(request: Request, status: int) -> GatewayError:
    """Return what the framework itself refuses as one of ours."""
    if status == MethodNotAllowed.status:
        return MethodNotAllowed(f"{request.method} is not possible here")
    if status == NotFound.status:
        return NotFound("no such route")
    if status < 500:
        return InvalidRequest("the body cannot be read as JSON")
    return InternalError("a fault of the gateway")
