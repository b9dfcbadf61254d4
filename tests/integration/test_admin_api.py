"""The control-plane API over a real Postgres: the same service functions, told over HTTP."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from gateway import __version__
from gateway.admin.api import build_admin_app
from gateway.admin.bounds import BODY_BYTES_MAX
from gateway.admin.credentials import create_admin_credential, revoke_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.keys import find_key
from gateway.admin.routes.context import TRANSACTIONS_MAX, Control
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import ADMIN_PREFIX, make_key, parse_key
from gateway.errors import Unavailable
from tests.support.admin_api import PEPPERS, Api, serving
from tests.support.ledger import write_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESOURCES = ("organizations", "teams", "users", "keys", "limits", "usage", "audit")


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn) as running:
        yield running


async def tenant(api: Api, organization: str = "acme") -> None:
    await api.post("organizations", name=organization)
    await api.post("teams", name="core", organization=organization)
    await api.post("users", name="bob", organization=organization, teams=["core"])


async def test_tenants_are_made_and_listed(api: Api) -> None:
    organization = await api.post("organizations", name="acme")
    team = await api.post("teams", name="core", organization="acme")
    user = await api.post("users", name="bob", organization=organization["id"])
    assert (await api.get("organizations"))["data"] == [organization]
    assert (await api.get("teams", organization="acme"))["data"] == [team]
    assert user["teams"] == []
    joined = await api.post(f"teams/{team['id']}/members", user="bob")
    assert joined == user | {"teams": ["core"]}
    assert await api.get("users") == {"data": [joined], "next_after": None}


async def test_a_key_is_made_limited_listed_and_revoked(api: Api) -> None:
    await tenant(api)
    made = await api.post(
        "keys", team="core", user="bob", models=["a"], expires_in="30d", requests_per_minute=5, tokens_per_minute=6
    )
    assert parse_key(made.pop("key")) is not None
    assert (await api.get("keys", team="core"))["data"] == [made]
    (limit,) = (await api.get("limits", organization="acme"))["data"]
    assert (limit["level"], limit["subject_id"]) == ("key", made["id"])
    assert (limit["requests_per_minute"], limit["tokens_per_minute"]) == (5, 6)
    for reference in (made["id"], made["public_id"]):
        answer = await api.client.delete(f"/admin/v1/keys/{reference}")
        assert (answer.status_code, answer.json()["status"]) == (200, "revoked")


async def test_limits_are_set_and_cleared(api: Api) -> None:
    await tenant(api)
    rule = await api.post("limits", level="team", subject="core", tokens_per_minute=1000, model="qwen")
    assert (rule["tokens_per_minute"], rule["model"], rule["subject"]) == (1000, "qwen", "core")
    query = {"level": "team", "subject": "core"}
    for params, removed in ((query, 0), (query | {"model": "qwen"}, 1), (query | {"model": "qwen"}, 0)):
        assert (await api.client.delete("/admin/v1/limits", params=params)).json() == {"removed": removed}


async def test_usage_is_reported_with_its_period(api: Api, postgres_dsn: str) -> None:
    await tenant(api)
    made = await api.post("keys", team="core")
    async with transaction_on(postgres_dsn) as db:
        key = await find_key(db, PLATFORM, made["id"])
        await write_usage(db, key, dt.datetime.now(dt.UTC) - dt.timedelta(hours=1), cost_pico_usd=1)
    report = await api.get("usage", by="team", since="2h")
    assert report["by"] == "team"
    assert report["since"] < report["until"]
    (row,) = report["data"]
    assert (row["id"], row["name"], row["cost_usd"]) == (made["team_id"], "core", "0.000000000001")


async def test_pages_follow_each_other(api: Api) -> None:
    for number in range(5):
        await api.post("organizations", name=f"org-{number}")
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = await api.get("organizations", **query)
        seen += [row["name"] for row in page["data"]]
        if page["next_after"] is None:
            break
        query["after"] = page["next_after"]
    assert sorted(seen) == [f"org-{number}" for number in range(5)]


@pytest.mark.parametrize("resource", RESOURCES)
async def test_no_resource_answers_without_an_admin_key(api: Api, postgres_dsn: str, resource: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        revoked = await create_admin_credential(db, PLATFORM, PEPPERS)
        await revoke_admin_credential(db, PLATFORM, revoked.key)
    await tenant(api)
    ordinary = (await api.post("keys", team="core"))["key"]
    unknown = make_key(PEPPERS, ADMIN_PREFIX).text
    wrong = (ordinary, revoked.key, unknown, api.admin_key + "x", "x" * 9000)
    for value in ("", "Bearer", "Basic eDp5", *(f"Bearer {key}" for key in wrong)):
        api.client.headers["authorization"] = value
        for method in ("GET", "POST", "DELETE"):
            status, error = await api.refused(method, resource, **({"json": {}} if method == "POST" else {}))
            if status != 405:
                assert (status, error["code"]) == (401, "invalid_api_key")


async def test_what_is_wrong_names_the_field(api: Api) -> None:
    await tenant(api)
    for path, body, param in (
        ("organizations", {}, "name"),
        ("organizations", {"name": 5}, "name"),
        ("organizations", {"name": "a\n"}, "name"),
        ("organizations", {"name": "\ud800"}, "name"),
        ("organizations", {"name": "x", "colour": 1}, "colour"),
        ("organizations", {"name": "x", "farbe\x00": 1, "größe": 2}, "farbe\\x00"),
        ("organizations", {"name": "x", "größe": 2}, "gr\\xf6\\xdfe"),
        ("organizations", {"name": "x", "\ud800": 1}, None),
        ("teams", {"name": "x"}, "organization"),
        ("teams", {"name": "x", "organization": "y" * 201}, "organization"),
        ("users", {"name": "x", "organization": "acme", "teams": "core"}, "teams"),
        ("users", {"name": "x", "organization": "acme", "teams": [1]}, "teams.0"),
        ("keys", {"team": "core", "expires_in": "soon"}, "expires_in"),
        ("keys", {"team": "core", "models": []}, "models"),
        ("keys", {"team": "core", "tokens_per_minute": 0}, "tokens_per_minute"),
        ("keys", {"team": "core", "tokens_per_minute": "5"}, "tokens_per_minute"),
        ("keys", {"team": "core", "tokens_per_minute": True}, "tokens_per_minute"),
        ("keys", {"team": "core", "tokens_per_minute": 10**4000}, "tokens_per_minute"),
        ("limits", {"level": "planet", "subject": "core", "tokens_per_minute": 5}, "level"),
        ("limits", {"level": "team", "subject": "core", "tokens_burst": 5}, "tokens_burst"),
        ("limits", {"level": "team", "subject": "core"}, None),
    ):
        status, error = await api.refused(
            "POST", path, content=json.dumps(body), headers={"content-type": "application/json"}
        )
        assert (status, error["param"]) == (400, param), (path, body, error)
        assert error["code"] == "invalid_request"
    for path, query, param in (
        ("organizations", {"limit": "0"}, "limit"),
        ("organizations", {"limit": "1001"}, "limit"),
        ("keys", {"after": "x"}, "after"),
        ("usage", {"by": "colour"}, "by"),
        ("usage", {"since": "someday"}, "since"),
        ("usage", {"since": "1h", "until": "2h"}, "since"),
    ):
        status, error = await api.refused("GET", path, params=query)
        assert (status, error["param"]) == (400, param), (path, query, error)


async def test_no_text_in_a_query_is_a_fault(api: Api) -> None:
    """Postgres keeps no NUL; whatever parameter it comes in."""
    document = (await api.client.get("/openapi.json")).json()
    lists = {path: one["get"] for path, one in document["paths"].items() if "get" in one and "{" not in path}
    answers = {
        (path, parameter["name"]): (await api.client.get(path, params={parameter["name"]: "a\x00"})).status_code
        for path, operation in lists.items()
        for parameter in operation.get("parameters", ())
        if path.startswith("/admin/v1/")
    }
    assert {answers["/admin/v1/users", "name"], answers["/admin/v1/audit", "actor"]} == {400}
    assert set(answers.values()) == {400, 404}, answers


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"x"', "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 60_000, "application/json"),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"name": "acme"}', "text/plain"),
        (b"name=acme", "application/x-www-form-urlencoded"),
    ],
)
async def test_what_is_no_json_object_is_400(api: Api, content: bytes, content_type: str) -> None:
    status, error = await api.refused("POST", "organizations", content=content, headers={"content-type": content_type})
    assert (status, error["code"]) == (400, "invalid_request")
    assert (await api.get("organizations"))["data"] == []


async def test_conflicts_and_what_is_not_there(api: Api) -> None:
    await tenant(api)
    assert (await api.refused("POST", "organizations", json={"name": "acme"}))[0] == 409
    assert (await api.refused("POST", "teams", json={"name": "x", "organization": "globex"}))[0] == 404
    assert (await api.refused("DELETE", f"keys/{uuid4()}"))[0] == 404
    assert (await api.refused("DELETE", "keys/%00"))[0] == 404
    assert (await api.refused("GET", "teams", params={"organization": "\x00"}))[0] == 404
    for path in ("nothing", "/", "/admin/v1/", "/docs", "/redoc", "organizations/"):
        assert (await api.refused("GET", path))[0] == 404
    assert (await api.refused("PUT", "organizations"))[0] == 405
    assert (await api.client.put("/admin/v1/limits")).headers["allow"] == "DELETE, GET, POST"
    assert (await api.client.put("/admin/v1/keys/x")).headers["allow"] == "DELETE, GET, PATCH"
    assert (await api.client.put("/openapi.json")).headers["allow"] == "GET, HEAD"


async def test_a_body_over_the_bound_is_413(api: Api) -> None:
    status, error = await api.refused("POST", "organizations", content=b" " * (BODY_BYTES_MAX + 1))
    assert (status, error["code"]) == (413, "request_too_large")


async def test_a_database_without_tables_or_gone_is_503(empty_postgres_dsn: str) -> None:
    async with asyncpg.create_pool(empty_postgres_dsn, min_size=0, max_size=1) as pool:
        transport = httpx2.ASGITransport(build_admin_app(Control(lambda: pool, PEPPERS), __version__))
        headers = {"authorization": f"Bearer {make_key(PEPPERS, ADMIN_PREFIX).text}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            api = Api(client, "")
            status, error = await api.refused("GET", "organizations")
            assert (status, error["code"]) == (503, "storage_unavailable")
            assert "penstock migrate" in error["detail"]
            await pool.close()
            assert (await api.refused("GET", "organizations"))[0] == 503


async def test_the_control_plane_takes_a_bounded_share_of_the_pool(postgres_dsn: str) -> None:
    async with asyncpg.create_pool(postgres_dsn, min_size=0, max_size=TRANSACTIONS_MAX + 1) as pool:
        control = Control(lambda: pool, PEPPERS, queue_timeout_s=0.01)
        async with AsyncExitStack() as stack:
            for _ in range(TRANSACTIONS_MAX):
                await stack.enter_async_context(control.transaction())
            with pytest.raises(Unavailable, match="too many control-plane requests"):
                await stack.enter_async_context(control.transaction())
        async with control.transaction() as db:
            assert await db.fetchval("SELECT 1") == 1


async def test_a_fault_is_500_without_its_details(api: Api) -> None:
    def broken() -> Any:
        raise RuntimeError("hunter2")

    transport = httpx2.ASGITransport(build_admin_app(Control(broken, PEPPERS), __version__))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.headers["authorization"] = f"Bearer {api.admin_key}"
        status, error = await Api(client, "").refused("GET", "organizations")
    assert (status, error["code"]) == (500, "internal_error")
    assert "hunter2" not in error["detail"]


async def test_the_openapi_document_tells_what_is_answered(api: Api) -> None:
    document = (await api.client.get("/openapi.json", headers={"authorization": ""})).json()
    paths = [path for path in document["paths"] if path.startswith("/admin/v1/")]
    assert {path.split("/")[3] for path in paths} >= set(RESOURCES)
    public = {"/auth/config", "/auth/exchange", "/auth/token", "/auth/device"}  # for who is nobody here yet
    for name, path in document["paths"].items():
        for method, operation in path.items():
            assert ("422" in operation["responses"]) == (method == "post")  # of an idempotency-key alone
            assert {"400", "401", "404", "503"} <= set(operation["responses"])
            assert ("security" in operation) == (name not in public), name
    assert document["paths"]["/admin/v1/keys/{key}"]["delete"]["operationId"] == "revoke_key"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_misspelt_parameter_lets_nothing_through(api: Api, method: str) -> None:
    await api.post("organizations", name="acme")
    await api.post("limits", level="organization", subject="acme", requests_per_minute=5)
    query = {"level": "organization", "subject": "acme", "modle": "qwen-coder"}
    status, problem = await api.refused(method, "limits", params=query)
    assert (status, problem["param"]) == (400, "modle")
    assert "model" in problem["detail"]
    assert len((await api.get("limits"))["data"]) == 1
