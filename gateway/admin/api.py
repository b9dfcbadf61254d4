"""The control-plane API as one ASGI application, to be mounted beside the data path.

Routes under /admin/v1 stand on the same service functions as the `penstock` command; the bearer is an admin key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

from gateway.admin import rendering
from gateway.admin.bounds import Bounds
from gateway.admin.routes import keys, limits, organizations, teams, usage, users
from gateway.admin.routes.context import ConfigProvider, Control, ErrorAnswer, PoolProvider

if TYPE_CHECKING:
    from gateway.authenticate.key import Peppers

PREFIX = "/admin/v1"

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (400, "Not understood; `param` names the field."),
        (401, "No valid admin key."),
        (403, "Not for this admin key."),
        (404, "Nothing of that name or id within reach."),
        (409, "The name is taken, or things do not fit together."),
        (413, "The body is too large."),
        (503, "Postgres does not answer."),
    )
}


def build_admin_app(
    pool_provider: PoolProvider, peppers: Peppers, version: str, config_provider: ConfigProvider | None = None
) -> FastAPI:
    """Return the application. It opens nothing: the pool is asked for at every request.

    Args:
        pool_provider: returns the open asyncpg pool; a connection is held for one transaction at a time.
        peppers: what admin keys and new API keys are signed with.
        version: of the gateway, for the OpenAPI document at /openapi.json.
        config_provider: returns the configuration in force, which names of models are held against; None: they are not.
    """
    # The documentation pages would load scripts from elsewhere; the OpenAPI document itself is enough for any viewer.
    app = FastAPI(
        title="Penstock control plane", version=version, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.control = Control(pool_provider, peppers, config_provider)
    rendering.install(app)
    app.add_middleware(Bounds)
    api = APIRouter(prefix=PREFIX, responses=_ERRORS)
    for resource in (organizations, teams, users, keys, limits, usage):
        api.include_router(resource.router)
    app.include_router(api)
    _describe_errors(app)
    return app


def _describe_errors(app: FastAPI) -> None:
    """Take the framework's own 422 answers out of the document: here they are 400s."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for schema in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(schema, None)
