"""How soon after its end a request is in reports: measured over many requests, for the page of guarantees."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.support.admin_api import serving
from tests.support.chat import chat
from tests.support.guarantees import measured

if TYPE_CHECKING:
    from tests.support.admin_api import Api
    from tests.support.gateway import GatewayProcess
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
REQUESTS = 100
GIVEN_UP_S = 30.0


async def seen_after_s(api: Api, tenant: Tenant, count: int) -> float:
    """Return how many seconds pass until a tenant's report shows so many requests, each of a session of its own."""
    ended_s = time.monotonic()
    while True:
        asked_s = time.monotonic() - ended_s
        report = await api.get(
            "usage", by="session,engine,key", bucket="hour", organization=str(tenant.organization_id)
        )
        requests = {row["group"]["session"]: row["requests"] for row in report["data"] if row["group"]["engine"]}
        if requests.get(session_of(count)) == 1 and sum(requests.values()) == count:
            return asked_s
        assert asked_s < GIVEN_UP_S, f"request {count} is not in the report"


def session_of(count: int) -> str:
    """Return the session of the request with this number."""
    return f"session-{count}"


async def test_usage_is_reported_soon(gateway: GatewayProcess, postgres_dsn: str, tenant: Tenant) -> None:
    client = gateway.http(tenant.key)
    delays_s = []
    async with serving(postgres_dsn) as api:
        for count in range(1, REQUESTS + 1):
            headers = {"x-session-id": session_of(count)}
            answer = await asyncio.to_thread(client.post, CHAT, chat(max_tokens=3), headers)
            assert answer.status == 200
            delays_s.append(await seen_after_s(api, tenant, count))
    p99_s = sorted(delays_s)[int(len(delays_s) * 0.99) - 1]
    measured("usage-visible", p99_s, f"99th percentile of {REQUESTS} requests")
