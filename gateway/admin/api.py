"""The control-plane API as one ASGI application, to be mounted beside the data path.

Routes under /admin/v1 stand on the same service functions as the `penstock` command; the bearer is an admin key.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI

from gateway.admin import rendering
from gateway.admin.bounds import Bounds
from gateway.admin.rendering import PROBLEM
from gateway.admin.routes import (
    admin_keys,
    apply,
    audit,
    keys,
    limits,
    me,
    members,
    organizations,
    pools,
    prices,
    sign_in,
    sign_out,
    teams,
    usage,
    users,
    webhooks,
)
from gateway.admin.routes.context import Control, Problem

PREFIX = "/admin/v1"

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}, "description": description}
    for status, description in (
        (400, "Not understood; `param` names the field."),
        (401, "No valid admin key."),
        (403, "Not for this admin key."),
        (404, "Nothing of that name or id within reach."),
        (409, "The name is taken, or things do not fit together."),
        (412, "It is no longer what If-Match says."),
        (413, "The body is too large."),
        (422, "The idempotency-key was sent with another request."),
        (503, "Postgres does not answer."),
    )
}


def build_admin_app(control: Control, version: str) -> FastAPI:
    """Return the application. It opens nothing: Postgres is asked for at every request.

    Args:
        control: what routes work with.
        version: of the gateway, for the OpenAPI document at /openapi.json.
    """
    # The documentation pages would load scripts from elsewhere; the OpenAPI document itself is enough for any viewer.
    app = FastAPI(
        title="Penstock control plane", version=version, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.control = control
    rendering.install(app)
    app.add_middleware(Bounds)
    api = APIRouter(prefix=PREFIX, responses=_ERRORS)
    tenants = (me, organizations, teams, members, users, admin_keys, keys, limits)
    for resource in (*tenants, prices, pools, usage, audit, webhooks, apply):
        api.include_router(resource.router)
    app.include_router(api)
    for outside in (sign_in.router, sign_out.router):
        app.include_router(outside, responses=_ERRORS)
    _describe_errors(app)
    return app


def _describe_errors(app: FastAPI) -> None:
    """Let the document tell of errors what is so: the framework's own 422 answers are 400s here."""
    document = app.openapi()
    for path in document["paths"].values():
        for method, operation in path.items():
            if method != "post":  # no other has an idempotency-key
                operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for schema in ("HTTPValidationError", "ValidationError"):
        schemas.pop(schema, None)
    schemas["Problem"] = Problem.model_json_schema()
