"""The control-plane API as one ASGI application, to be mounted beside the data path.

Routes under /admin/v1 stand on the same service functions as the `penstock` command; the bearer is an admin key.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI

from gateway.admin import rendering
from gateway.admin.bounds import Bounds
from gateway.admin.examples import add_examples
from gateway.admin.idempotency import KEY_CHARS_MAX
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
    statements,
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

_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of what is to be changed: 412 when it is no longer that.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same key within a day, it is answered as the first time, and done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX},
}
_HEADERS = {"patch": (_IF_MATCH,), "delete": (_IF_MATCH,), "post": (_IDEMPOTENCY_KEY,)}


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
    for resource in (*tenants, prices, pools, usage, statements, audit, webhooks, apply):
        api.include_router(resource.router)
    app.include_router(api)
    for outside in (sign_in.router, sign_out.router):
        app.include_router(outside, responses=_ERRORS)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Let the document tell what is so: examples, headers, and that the framework's own 422 answers are 400s here."""
    document = app.openapi()
    for path in document["paths"].values():
        for method, operation in path.items():
            if method != "post":  # no other has an idempotency-key
                operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for schema in ("HTTPValidationError", "ValidationError"):
        schemas.pop(schema, None)
    schemas["Problem"] = Problem.model_json_schema()
    add_examples(document)
    for path in document["paths"].values():
        for method, operation in path.items():
            # The framework makes a summary of a function's name: the first sentence says more.
            operation["summary"] = operation["description"].partition("\n")[0].partition(". ")[0].rstrip(".:")
            operation.setdefault("parameters", []).extend(_HEADERS.get(method, ()))
