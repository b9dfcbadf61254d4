"""Organizations, teams, users, memberships, admin keys, limits, prices and pools over HTTP, beside what the walk holds:
changes and their ETags, filters, and what becomes of what hangs on them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.database import transaction_on
from gateway.domain.config import EngineKind, GatewayConfig, ModelConfig, PoolConfig
from gateway.domain.engines import EngineState
from tests.support.admin_api import Api, serving
from tests.support.postgres import ask
from tests.support.waiting import wait_until_asked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from tests.support.command import Penstock

ENDPOINT = "http://user:secret@engine:8000/v1?token=secret"
CONFIG = GatewayConfig.of(
    [PoolConfig("local", EngineKind.VLLM, (ENDPOINT,), concurrency=8)], [ModelConfig("qwen", "local", "qwen")]
)
STATES = [EngineState("local", ENDPOINT, up=True, ejected=False, busy=True, in_flight=3)]


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn, CONFIG, STATES) as running:
        await running.post("organizations", name="acme")
        for team in ("core", "web"):
            await running.post("teams", name=team, organization="acme")
        await running.post("users", name="lead", organization="acme", teams=["core"])
        await running.post("users", name="dev", organization="acme", teams=["core", "web"])
        yield running


async def sent(api: Api, method: str, path: str, *, key: str | None = None, **sent: Any) -> httpx2.Response:
    headers = sent.pop("headers", {}) | ({} if key is None else {"authorization": f"Bearer {key}"})
    return await api.client.request(method, f"/admin/v1/{path}", headers=headers, **sent)


async def admin_key(api: Api, **wanted: str) -> str:
    made: str = (await api.post("admin-keys", **wanted))["key"]
    return made


CHANGES = {
    "organizations/acme": {"name": "new"},
    "teams/core": {"name": "new"},
    "users/dev": {"role": "organization_admin"},
    "teams/core/members/dev": {"role": "team_admin"},
}


@pytest.mark.parametrize("path", CHANGES)
async def test_a_change_says_which_state_it_is_of(api: Api, path: str) -> None:
    """Of two who read the same state, the second to write is told; what has changed is read again, and written."""
    change = CHANGES[path]
    read = await sent(api, "GET", path)
    tag = read.headers["etag"]
    assert (await sent(api, "GET", path, headers={"if-none-match": tag})).status_code == 304
    first = await sent(api, "PATCH", path, json=change, headers={"if-match": tag})
    assert first.status_code == 200, first.text
    assert first.json() == read.json() | change | {
        name: value for name, value in first.json().items() if name in {"role_source", "source"}
    }
    name = path.replace("acme", "new").replace("core", "new") if "name" in change else path
    for method in ("PATCH", "DELETE"):
        late = await sent(api, method, name, json=change if method == "PATCH" else None, headers={"if-match": tag})
        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    again = await sent(api, "GET", name)
    assert (again.headers["etag"], again.json()) == (first.headers["etag"], first.json())
    gone = await sent(api, "DELETE", name, headers={"if-match": again.headers["etag"]})
    assert gone.status_code == 200, gone.text
    assert (await sent(api, "GET", name)).status_code == 404


async def test_a_limit_is_changed_where_it_stands(api: Api) -> None:
    made = await api.post("limits", level="team", subject="core", requests_per_minute=5, concurrent_requests=2)
    path = f"limits/{made['id']}"
    read = await sent(api, "GET", path)
    assert read.json() == made
    changed = await sent(
        api, "PATCH", path, json={"requests_per_minute": 6}, headers={"if-match": read.headers["etag"]}
    )
    assert changed.json() == made | {"requests_per_minute": 6}
    late = await sent(api, "DELETE", path, headers={"if-match": read.headers["etag"]})
    assert late.status_code == 412
    assert (await sent(api, "DELETE", path)).json() == changed.json()
    assert (await sent(api, "GET", path)).status_code == 404
    assert (await api.get("limits"))["data"] == []


async def test_lists_are_narrowed(api: Api) -> None:
    async def names(path: str, **query: str) -> list[str]:
        return sorted(row["name"] for row in (await api.get(path, **query))["data"])

    assert await names("organizations", name="CM") == ["acme"]
    assert await names("organizations", name="%") == []
    assert await names("teams", name="or") == ["core"]
    assert await names("users", team="web") == ["dev"]
    assert await names("users", name="E", role="member") == ["dev", "lead"]
    assert await names("users", role="organization_admin") == []
    await sent(api, "PATCH", "teams/core/members/lead", json={"role": "team_admin"})
    assert await names("teams/core/members") == ["dev", "lead"]
    assert await names("teams/core/members", role="team_admin") == ["lead"]
    for level, subject in (("team", "core"), ("user", "dev")):
        await api.post("limits", level=level, subject=subject, requests_per_minute=5)
    await api.post("limits", level="team", subject="core", requests_per_minute=5, model="qwen")
    assert len((await api.get("limits", level="team"))["data"]) == 2
    assert len((await api.get("limits", level="team", subject="core", model="qwen"))["data"]) == 1
    assert (await api.refused("GET", "limits", params={"subject": "core"}))[1]["param"] == "level"


async def test_who_leaves_a_team_leaves_its_keys_there(api: Api) -> None:
    there = await api.post("keys", team="core", user="dev")
    elsewhere = await api.post("keys", team="web", user="dev")
    of_lead = await api.post("keys", team="core", user="lead")
    assert (await sent(api, "DELETE", "teams/core/members/dev")).json()["name"] == "dev"
    status = {row["id"]: row["status"] for row in (await api.get("keys"))["data"]}
    assert (status[there["id"]], status[elsewhere["id"]], status[of_lead["id"]]) == ("revoked", "active", "active")


async def test_a_person_s_key_ends_with_the_person_and_is_as_wide(api: Api) -> None:
    key = await admin_key(api, user="dev")
    me = (await sent(api, "GET", "me", key=key)).json()
    assert (me["role"], me["name"], me["organization"]) == ("member", "dev", "acme")
    assert [(team["name"], team["role"]) for team in me["teams"]] == [("core", "member"), ("web", "member")]
    await sent(api, "PATCH", "teams/core/members/dev", json={"role": "team_admin"})
    assert (await sent(api, "GET", "me", key=key)).json()["role"] == "team_admin"
    own = (await sent(api, "POST", "admin-keys", key=key, json={"name": "laptop"})).json()
    assert (own["user"], own["organization"], own["expires_at"] is None) == ("dev", "acme", False)
    await sent(api, "DELETE", "users/dev")
    for each in (key, own["key"]):
        assert (await sent(api, "GET", "me", key=each)).status_code == 401
    assert {row["status"] for row in (await api.get("admin-keys", active="false"))["data"]} == {"active", "revoked"}
    assert {row["user"] for row in (await api.get("admin-keys", active="true"))["data"]} == {None}


async def test_nobody_makes_itself_wider(api: Api) -> None:
    """An organization's administrator neither becomes the platform's nor borrows who is."""
    await api.post("users", name="root", organization="acme", role="platform_admin")
    await sent(api, "PATCH", "users/lead", json={"role": "organization_admin"})
    key = await admin_key(api, user="lead")
    of_root = await api.post("admin-keys", user="root")
    for method, path, body in (
        ("PATCH", "users/lead", {"role": "platform_admin"}),
        ("PATCH", "users/root", {"role": "member"}),
        ("DELETE", "users/root", None),
        ("POST", "admin-keys", {"user": "root"}),
        ("DELETE", f"admin-keys/{of_root['id']}", None),
        ("POST", "limits", {"level": "organization", "subject": "acme", "requests_per_minute": 5}),
    ):
        answer = await sent(api, method, path, key=key, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    made = (await sent(api, "POST", "admin-keys", key=key, json={})).json()
    assert (made["organization"], made["user"]) == ("acme", None)


async def test_names_can_stand_in_addresses(api: Api) -> None:
    """A team `x/members/carl` would be taken for a member of the team `x`, wherever an address is decoded."""
    for path, body in (
        ("organizations", {"name": "a/b"}),
        ("teams", {"name": "core/members/dev", "organization": "acme"}),
        ("users", {"name": "..", "organization": "acme"}),
    ):
        assert (await api.refused("POST", path, json=body))[1]["param"] == "name"
    assert (await api.refused("PATCH", "teams/core", json={"name": "a/b"}))[0] == 400


async def test_the_last_key_of_the_platform_stays(api: Api) -> None:
    (own,) = (await api.get("admin-keys"))["data"]
    await api.post("admin-keys", organization="acme")
    status, problem = await api.refused("DELETE", f"admin-keys/{own['id']}")
    assert (status, problem["param"]) == (409, "admin_key")
    assert "make another first" in problem["detail"]
    other = await api.post("admin-keys", name="another")
    assert (await sent(api, "DELETE", f"admin-keys/{own['id']}", key=other["key"])).json()["status"] == "revoked"
    assert (await sent(api, "DELETE", f"admin-keys/{own['id']}", key=other["key"])).status_code == 200
    assert (await sent(api, "DELETE", f"admin-keys/{other['id']}", key=other["key"])).status_code == 409


async def test_of_two_who_revoke_an_admin_key_the_second_is_told(api: Api, postgres_dsn: str) -> None:
    made = await api.post("admin-keys", organization="acme")
    tag = (await sent(api, "GET", f"admin-keys/{made['id']}")).headers["etag"]
    both = [sent(api, "DELETE", f"admin-keys/{made['id']}", headers={"if-match": tag}) for _ in range(2)]
    async with transaction_on(postgres_dsn) as db:
        await db.execute("SELECT 1 FROM admin_credential FOR UPDATE")
        answers = asyncio.gather(*both)
        await wait_until_asked(lambda: _both_wait(postgres_dsn), "both have read the key and wait to change it")
    assert sorted(answer.status_code for answer in await answers) == [200, 412]


async def _both_wait(dsn: str) -> bool:
    held = "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await ask(dsn, held))


async def test_prices_are_set_by_the_platform_and_read_by_all(api: Api) -> None:
    made = await api.post("prices", model="qwen", input="0.20", output="0.60", **{"from": "2026-01-01"})
    assert (made["is_first"], made["cached_input"], made["rerate_since"]) == (True, "0.2", "2026-01-01T00:00:00Z")
    later = await api.post("prices", model="qwen", input="0.30", output="0.60")
    key = await admin_key(api, user="dev")
    listed = (await sent(api, "GET", "prices?past=true&limit=1", key=key)).json()
    assert [row["input"] for row in listed["data"]] == ["0.2"]
    rest = (await sent(api, "GET", f"prices?past=true&after={listed['next_after']}", key=key)).json()
    assert ([row["id"] for row in rest["data"]], rest["next_after"]) == ([later["id"]], None)
    assert [row["input"] for row in (await api.get("prices", model="qwen"))["data"]] == ["0.3"]
    for wrong in ({"model": "gpt"}, {"input": "-1"}):
        body = {"model": "qwen", "input": "1", "output": "1"} | wrong
        assert (await api.refused("POST", "prices", json=body))[1]["param"] == next(iter(wrong))


async def test_what_is_spent_is_told_on_request(api: Api) -> None:
    await api.post("limits", level="organization", subject="acme", budget_day_usd="5")
    await api.post("limits", level="user", subject="dev", budget_day_usd="1")
    rules = (await api.get("limits", spending="true"))["data"]
    assert {(rule["level"], rule["spent_day_usd"]) for rule in rules} == {("organization", "0"), ("user", "0")}
    key = await admin_key(api, user="dev")
    rules = (await sent(api, "GET", "limits?spending=true", key=key)).json()["data"]
    assert {(rule["level"], rule["spent_day_usd"]) for rule in rules} == {("organization", None), ("user", "0")}


async def test_engines_are_told_to_the_platform_without_what_is_secret(api: Api) -> None:
    key = await admin_key(api, user="dev")
    all_of_it, part = await api.get("pools/local"), (await sent(api, "GET", "pools/local", key=key)).json()
    engine = {"endpoint": "http://engine:8000/v1", "up": True, "ejected": False, "busy": True, "in_flight": 3}
    assert (all_of_it["engines"], all_of_it["concurrency"]) == ([engine], 8)
    assert part == all_of_it | {"engines": None, "concurrency": None}
    assert (part["models"], part["available"]) == (["qwen"], True)
    assert (await api.get("pools"))["data"] == [all_of_it]
    assert (await api.refused("GET", "pools/other"))[0] == 404
    for query in ("by=engine", "by=model,engine", "by=model&engine=http://engine:8000"):
        assert (await sent(api, "GET", f"usage?{query}", key=key)).status_code == 403, "addresses of networks inside"


def test_the_first_admin_key_is_made_beside_the_database(penstock: Penstock) -> None:
    made = penstock("bootstrap", "--json").document
    assert (made["name"], made["organization"], made["user"]) == ("bootstrap", None, None)
    refused = penstock("bootstrap")
    assert refused.code == 1
    assert "1 admin key of the platform works already" in refused.err
    assert "penstock admin-key create" in refused.err
    assert penstock("bootstrap", "--force", "--json").document["id"] != made["id"]
