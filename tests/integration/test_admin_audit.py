"""The audit log: every change is in it, whoever made it, without secrets, and nothing takes it out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from tests.support.admin_api import PEPPERS, Api, serving
from tests.support.postgres import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRETS = {"secret_hmac", "pepper_version", "previous_secret_hmac", "previous_pepper_version"}


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn) as running:
        yield running


async def entries(api: Api, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get("audit", **query))["data"]
    return found


async def test_a_change_tells_who_what_before_after_and_from_where(api: Api) -> None:
    answer = await api.client.post(
        "/admin/v1/organizations", json={"name": "acme"}, headers={"user-agent": "terraform/9"}
    )
    organization = answer.json()
    (made,) = await entries(api, subject=organization["id"])
    assert (made["action"], made["subject_kind"], made["organization_id"]) == (
        "create",
        "organization",
        made["subject_id"],
    )
    assert (made["before"], made["after"]["name"], made["changed"]) == (None, "acme", [])
    actor = made["actor"]
    assert actor["kind"] == "admin_key"
    assert actor["credential"] in api.admin_key
    assert (actor["address"], actor["agent"]) == ("127.0.0.1", "terraform/9")
    assert actor["request_id"] == answer.headers["x-request-id"]


async def test_a_limit_shows_what_it_was(api: Api) -> None:
    await api.post("organizations", name="acme")
    await api.post("limits", level="organization", subject="acme", requests_per_minute=5)
    await api.post("limits", level="organization", subject="acme", requests_per_minute=7)
    changed, made = await entries(api, kind="limit")
    assert (made["action"], changed["action"], changed["changed"]) == ("create", "change", ["requests_per_minute"])
    assert (changed["before"]["requests_per_minute"], changed["after"]["requests_per_minute"]) == (5, 7)


async def test_what_was_taken_back_leaves_no_trace_and_no_change_is_no_entry(api: Api) -> None:
    await api.post("organizations", name="acme")
    before = await entries(api)
    await api.refused("POST", "organizations", json={"name": "acme"})
    await api.post("teams", name="core", organization="acme")
    await api.post("users", name="bob", organization="acme")
    await api.post("teams/core/members", user="bob")
    await api.post("teams/core/members", user="bob")
    kinds = [entry["subject_kind"] for entry in await entries(api)]
    assert kinds == ["membership", "user", "team"] + [entry["subject_kind"] for entry in before]


async def test_secrets_are_in_no_entry(api: Api, postgres_dsn: str) -> None:
    await api.post("organizations", name="acme")
    await api.post("teams", name="core", organization="acme")
    made = await api.post("keys", team="core")
    await api.client.delete(f"/admin/v1/keys/{made['id']}")
    of_the_key = await entries(api, kind="key")
    assert [entry["action"] for entry in of_the_key] == ["change", "create"]
    credentials = await entries(api, kind="admin_key")
    for entry in [*of_the_key, *credentials]:
        assert not SECRETS & ({*(entry["before"] or {}), *(entry["after"] or {})})
    whole = str(await ask(postgres_dsn, "SELECT string_agg(to_jsonb(a)::text, ' ') FROM audit_event a"))
    hashed = await ask(postgres_dsn, "SELECT encode(secret_hmac, 'hex') FROM api_key")
    assert "acme" in whole
    assert hashed
    assert str(hashed) not in whole
    assert made["key"] not in whole


async def test_sql_by_hand_is_in_the_log(api: Api, postgres_dsn: str) -> None:
    organization = await api.post("organizations", name="acme")
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute("UPDATE organization SET name = 'mine'")
    finally:
        await connection.close()
    latest = (await entries(api, subject=organization["id"]))[0]
    assert (latest["actor"]["kind"], latest["changed"]) == ("database", ["name"])


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_event SET actor = '{}'", "DELETE FROM audit_event", "TRUNCATE audit_event"]
)
async def test_nothing_is_taken_out_or_changed(api: Api, postgres_dsn: str, statement: str) -> None:
    await api.post("organizations", name="acme")
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await ask(postgres_dsn, statement)
    assert await entries(api, kind="organization")


async def test_an_organization_sees_its_own_and_pages_are_whole(api: Api, postgres_dsn: str) -> None:
    ids = [(await api.post("organizations", name=name))["id"] for name in ("acme", "other")]
    for name in ("acme", "other"):
        for number in range(3):
            await api.post("teams", name=f"team-{number}", organization=name)
    async with transaction_on(postgres_dsn) as db:
        made = await create_admin_credential(db, PLATFORM, PEPPERS)
        await db.execute("UPDATE admin_credential SET organization_id = $1 WHERE id = $2", ids[0], made.about.id)
    own = {"authorization": f"Bearer {made.key}"}
    seen: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = (await api.client.get("/admin/v1/audit", params=query, headers=own)).json()
        seen += page["data"]
        if page["next_before"] is None:
            break
        query["before"] = str(page["next_before"])
    assert {entry["organization_id"] for entry in seen} == {ids[0]}
    assert len(seen) == 5  # itself, three teams, the credential that became its own
    assert [entry["id"] for entry in seen] == sorted((entry["id"] for entry in seen), reverse=True)
    foreign = await api.client.get("/admin/v1/audit", params={"organization": ids[1]}, headers=own)
    assert foreign.status_code == 404


async def test_filters_and_what_they_refuse(api: Api) -> None:
    await api.post("organizations", name="acme")
    assert await entries(api, action="delete") == []
    assert await entries(api, actor="nobody") == []
    assert await entries(api, until="2020-01-01") == []
    assert len(await entries(api, since="1h", kind="organization")) == 1
    status, problem = await api.refused("GET", "audit", params={"kind": "cat"})
    assert (status, problem["param"]) == (400, "kind")
