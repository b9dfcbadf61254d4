"""Without keys: who works on the machine is let in, web pages are not, and all of it is the organization local's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.admin.local_tenant import ensure_local_tenant, local_key
from gateway.errors import ConfigError
from gateway.settings import load_settings
from tests.support.chat import chat, message
from tests.support.command import Penstock
from tests.support.ledger import rows_of
from tests.support.refusals import assert_refused
from tests.support.roles import serving_role
from tests.support.stack import Stack, running_stack
from tests.support.tenants import NO_PEPPERS
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
KEYS = [
    {},
    {"authorization": "Bearer any"},
    {"authorization": "Basic eDp5"},
    {"x-api-key": ""},
    {"x-api-key": "x" * 600},
]
WHO = "SELECT organization_id, team_id, user_id, key_id, session FROM usage_event ORDER BY event_id"
LOCAL = """
SELECT k.organization_id, k.team_id, k.user_id, k.id AS key_id, k.name AS key, t.name AS team, o.name AS organization
  FROM api_key k JOIN team t ON t.id = k.team_id JOIN organization o ON o.id = k.organization_id
"""


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas that ask nobody for a key."""
    folder = tmp_path_factory.mktemp("local")
    with running_stack(databases, servers, folder, replicas=2, auth="none") as running:
        yield running


@pytest.fixture
def command(stack: Stack, tmp_path: Path) -> Penstock:
    """The command, on the database of the replicas."""
    return Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": stack.dsn})


def test_with_any_key_or_none_all_is_used_by_the_organization_local(stack: Stack) -> None:
    before = len(rows_of(stack.dsn, WHO))
    for gateway in stack.gateways:
        for headers in KEYS:
            answer = gateway.http().post(CHAT, chat(), {**headers, "x-session-id": "ses_1"})
            assert answer.status == 200, answer
        assert gateway.http().get("/v1/models").document["data"][0]["id"] == "sim"
        assert gateway.http().get("/v1/models/sim").status == 200
        assert gateway.http().get("/readyz").status == 200
        assert gateway.http().post("/v1/messages", message()).status == 200
    (local,) = rows_of(stack.dsn, LOCAL)
    assert (local["organization"], local["team"], local["key"], local["user_id"]) == ("local", "local", "local", None)
    asked = before + 2 * (len(KEYS) + 1)
    wait_for(lambda: len(rows_of(stack.dsn, WHO)) == asked, "all are closed")
    rows = rows_of(stack.dsn, WHO)
    assert {row["session"] for row in rows[before:]} == {"ses_1", None}
    for row in rows:
        assert all(row[name] == local[name] for name in ("organization_id", "team_id", "user_id", "key_id"))
    samples = stack.gateway.metrics()
    assert any(name.startswith("penstock_requests_total{") and 'organization="local"' in name for name in samples)
    lines = [line for line in stack.gateway.log_lines() if line["event"] == "request"]
    assert {(line["organization"], line["team"], line["user"]) for line in lines} == {("local", "local", None)}


def test_the_control_plane_needs_an_admin_key_all_the_same(stack: Stack) -> None:
    for headers in ({}, {"authorization": "Bearer any"}):
        assert stack.gateway.http().get("/admin/v1/organizations", headers).status == 401


def test_limits_of_the_organization_hold_as_soon_as_they_are_set(stack: Stack, command: Penstock) -> None:
    clients = [gateway.http() for gateway in stack.gateways]
    of_local = ("limit", "set", "--org", "local")
    command(*of_local, "--budget-usd", "0", "--budget-period", "session")
    told = {"x-session-id": "ses_1"}
    for client in clients:
        wait_for(lambda: client.post(CHAT, chat(), told).status == 402, "the budget is heard of")  # noqa: B023 - waited for within the loop
        assert client.post(CHAT, chat()).status == 200
    command(*of_local, "--budget-usd", "none", "--budget-period", "session")
    for client in clients:
        wait_for(lambda: client.post(CHAT, chat(), told).status == 200, "so is its end")  # noqa: B023 - likewise


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example:8080"}, {"origin": "https://evil.example"}, {"origin": "null"}]
)
def test_web_pages_are_refused_in_the_dialect_of_the_endpoint(stack: Stack, headers: dict[str, str]) -> None:
    client = stack.gateway.http()
    for answer in (client.post(CHAT, chat(), headers), client.get("/v1/models", headers)):
        assert_refused(answer, 403, "forbidden")
        assert "asks for no key" in answer.error["message"]
    answer = client.post("/v1/messages", message(), headers)
    assert (answer.status, answer.error["type"]) == (403, "permission_error")
    assert client.post(CHAT, chat(), {"origin": stack.gateway.url}).status == 200


async def test_starts_at_the_same_time_make_one_tenant(postgres_dsn: str) -> None:
    async with asyncpg.create_pool(postgres_dsn, min_size=5, max_size=5) as pool:
        found = await asyncio.gather(*(ensure_local_tenant(pool, NO_PEPPERS) for _ in range(5)))
        assert len(set(found)) == 1
        assert [row["public_id"] for row in await pool.fetch("SELECT public_id FROM api_key")] == found[:1]
        assert await pool.fetchval("SELECT count(*) FROM audit_event WHERE actor ->> 'name' = 'local'") == 3
        await pool.execute("UPDATE api_key SET revoked_at = now()")
        assert await ensure_local_tenant(pool, NO_PEPPERS) not in found, "one that counts no longer is made anew"


async def test_where_callers_show_keys_nothing_is_made(postgres_dsn: str, tmp_path: Path) -> None:
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=1) as pool:
        assert await local_key(load_settings(config=tmp_path / "none.yaml"), pool, NO_PEPPERS) is None
        assert await pool.fetchval("SELECT count(*) FROM organization") == 0


async def test_a_role_that_may_not_make_it_says_what_to_do(postgres_dsn: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"config": tmp_path / "none.yaml", "auth": "none"}
    with serving_role(postgres_dsn) as dsn:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
            with pytest.raises(ConfigError, match="may not make them; as one that administers: penstock org") as told:
                await local_key(load_settings(**settings), pool, NO_PEPPERS)
            command = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": postgres_dsn})
            for line in str(told.value).partition(": penstock ")[2].split(" && penstock "):
                assert (await asyncio.to_thread(command, *line.split())).code == 0
            made = await local_key(load_settings(**settings), pool, NO_PEPPERS)
            assert made is not None
            assert made.token_of({}) not in repr(made)
