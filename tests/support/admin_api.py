"""The control-plane API without a server before it: the ASGI application over a real Postgres, and a caller of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2

from gateway import __version__
from gateway.admin.api import build_admin_app
from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.routes.context import Control
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import Peppers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.domain.config import GatewayConfig
    from gateway.domain.engines import EngineState

PEPPERS = Peppers({})


@dataclass(frozen=True)
class Api:
    """A caller with an admin key."""

    client: httpx2.AsyncClient
    admin_key: str

    async def get(self, path: str, **query: str) -> Any:
        """Return the document of a call that has to succeed."""
        answer = await self.client.get(f"/admin/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, **body: Any) -> Any:
        """Return the document of a call that has to succeed."""
        answer = await self.client.post(f"/admin/v1/{path}", json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def refused(self, method: str, path: str, **sent: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the problem of a call that has to fail, in the shape of all errors."""
        answer = await self.client.request(method, path if path.startswith("/") else f"/admin/v1/{path}", **sent)
        assert answer.headers["x-request-id"]
        body = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(body) == {"type", "title", "status", "detail", "instance", "code", "param"}
        assert body["status"] == answer.status_code
        assert body["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
        return answer.status_code, body


@asynccontextmanager
async def serving(
    dsn: str, config: GatewayConfig | None = None, engines: Sequence[EngineState] | None = None
) -> AsyncIterator[Api]:
    """Serve the API on this database, beside this configuration and these engines, to a caller with an admin key."""
    config_provider = None if config is None else lambda: config
    async with transaction_on(dsn) as db:
        admin_key = (await create_admin_credential(db, PLATFORM, PEPPERS)).key
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool:
        provider = None if engines is None else lambda: engines
        control = Control(lambda: pool, PEPPERS, config_provider, engines_provider=provider)
        transport = httpx2.ASGITransport(build_admin_app(control, __version__))
        headers = {"authorization": f"Bearer {admin_key}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            yield Api(client, admin_key)
