"""The control-plane API in parts: each resource's routes as an application of their own, imported when it is called.

A gateway serves all of them as one (`gateway.admin.api`). A command that works on a database serves itself one or two,
and must not wait for the rest to be imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI

from gateway.admin import rendering
from gateway.admin.bounds import Bounds
from gateway.errors import NotFound

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from gateway.admin.routes.context import Control

PREFIX: Final = "/admin/v1"
_MORE: Final = {"teams": ("members",)}
"""Resources whose addresses several modules of `gateway.admin.routes` serve; else its name is the module's."""


class Parts:
    """An ASGI application that serves what is below /admin/v1, made of the parts that are asked for."""

    def __init__(self, control: Control, version: str) -> None:
        self._control = control
        self._version = version
        self._made: dict[str, FastAPI] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        resource = scope["path"].removeprefix(f"{PREFIX}/").partition("/")[0]
        if resource not in self._made:
            self._made[resource] = self.part(resource)
        await self._made[resource](scope, receive, send)

    def part(self, resource: str) -> FastAPI:
        """Return the application of one resource, such as `keys`. Raises NotFound for what is none."""
        app = FastAPI(version=self._version, openapi_url=None, redirect_slashes=False)
        app.state.control = self._control
        rendering.install(app)
        app.add_middleware(Bounds)
        for name in (resource.replace("-", "_"), *_MORE.get(resource, ())):
            try:
                app.include_router(import_module(f"gateway.admin.routes.{name}").router, prefix=PREFIX)
            except ModuleNotFoundError:
                raise NotFound("no such route") from None
        return app
