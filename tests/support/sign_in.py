"""The control plane with people who sign in: the ASGI application over a real Postgres, beside a real provider."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2

from gateway import __version__
from gateway.admin.api import build_admin_app
from gateway.admin.database import transaction_on
from gateway.admin.organizations import create_organization
from gateway.admin.routes.context import Control
from gateway.admin.scope import PLATFORM
from gateway.admin.sign_in.service import SignIn
from gateway.admin.teams import create_team
from gateway.settings import Settings, parse_config
from tests.support.admin_api import PEPPERS
from tests.support.oidc import CLIENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.oidc import OidcServer

POOLS = "pools: {gpu: {engine: vllm, endpoints: [http://10.0.0.1:8000]}}\nmodels: {sim: {pool: gpu}}\n"
SECTION = """\
sign_in:
  groups:
    everything: {organization: acme, role: platform_admin}
    bosses: {organization: acme, role: organization_admin}
    ml: {organization: acme, team: ml}
    ml-leads: {organization: acme, team: ml, role: team_admin}
    both: {organization: acme, team: [ml, data]}
    umbrella: {organization: umbrella}
"""


@dataclass
class SignInApi:
    """A caller without any credential, and the parts behind it."""

    client: httpx2.AsyncClient
    sign_in: SignIn
    dsn: str
    section: str = SECTION

    async def exchange(self, token: str, **more: Any) -> httpx2.Response:
        """Ask for a session."""
        return await self.client.post("/auth/exchange", json={"id_token": token, **more})

    async def session(self, token: str) -> dict[str, Any]:
        """Return a session, which has to be had."""
        answer = await self.exchange(token)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def refused(self, token: str, **more: Any) -> tuple[int, str, str]:
        """Return status, code and words of a refusal."""
        answer = await self.exchange(token, **more)
        problem = answer.json()
        return answer.status_code, problem.get("code"), problem.get("detail")

    async def get(self, path: str, credential: str) -> httpx2.Response:
        """GET `path` with a credential or a token."""
        return await self.client.get(path, headers={"authorization": f"Bearer {credential}"})

    async def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return what the database says."""
        async with transaction_on(self.dsn) as db:
            return [dict(row) for row in await db.fetch(query, *values)]

    async def memberships(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return role and source by user and team."""
        rows = await self.rows(
            'SELECT app_user.name AS "user", team.name AS team, membership.role, source FROM membership'
            " JOIN team ON team.id = team_id JOIN app_user ON app_user.id = user_id"
        )
        return {(row["user"], row["team"]): (row["role"], row["source"]) for row in rows}


@asynccontextmanager
async def serving_sign_in(dsn: str, oidc: OidcServer, **settings: Any) -> AsyncIterator[SignInApi]:
    """Serve the API beside `oidc`, with organizations acme (teams ml and data) and umbrella, and groups of SECTION."""
    async with transaction_on(dsn) as db:
        acme = await create_organization(db, PLATFORM, "acme")
        for team in ("ml", "data"):
            await create_team(db, PLATFORM, team, organization=str(acme.id))
        await create_organization(db, PLATFORM, "umbrella")
    given = Settings(oidc_issuer=oidc.issuer, oidc_client_id=CLIENT, **settings)
    async with asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool:
        sign_in = SignIn.of(given, lambda: parse_config(POOLS + api.section).sign_in, lambda: pool)
        assert sign_in is not None
        app = build_admin_app(Control(lambda: pool, PEPPERS, sign_in=sign_in), __version__)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            api = SignInApi(client, sign_in, dsn)
            yield api
