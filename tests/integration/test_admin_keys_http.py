"""Keys over the control-plane API and by command: read, changed, rotated, each change held to what was read before."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.keys import ApiKey
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import make_key, parse_key
from tests.support.admin_api import PEPPERS, Api, serving
from tests.support.command import Penstock
from tests.support.tenants import make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NO_CHANGES: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"models": []}, "models"),
    ({"addresses": []}, "addresses"),
    ({"addresses": ["10.0.0.1/8"]}, "addresses"),
    ({"addresses": ["10.0.0.0/8", 5]}, "addresses.1"),
    ({"addresses": "10.0.0.0/8"}, "addresses"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ({"expires_at": "soon"}, "expires_at"),
    ({"secret": "x"}, "secret"),
    ({"revoked_at": None}, "revoked_at"),
]


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    """The API, and an organization with a team and a member in it."""
    async with serving(postgres_dsn) as running:
        await running.post("organizations", name="acme")
        await running.post("teams", name="core", organization="acme")
        await running.post("users", name="bob", organization="acme", teams=["core"])
        yield running


async def as_member(dsn: str) -> dict[str, str]:
    """Return headers of bob, who administers nothing."""
    async with transaction_on(dsn) as db:
        made = await create_admin_credential(db, PLATFORM, PEPPERS, organization="acme", user="bob")
    return {"authorization": f"Bearer {made.key}"}


async def test_a_key_is_changed_as_it_was_read(api: Api) -> None:
    made = await api.post("keys", team="core", name="ci", addresses=["10.0.0.0/8"], expires_in="30d")
    text = made.pop("key")
    path = f"/admin/v1/keys/{made['id']}"
    read = await api.client.get(path)
    assert read.json() == made
    assert made["addresses"] == ["10.0.0.0/8"]
    tag = read.headers["etag"]
    assert (await api.client.get(path, headers={"if-none-match": tag})).status_code == 304
    body = {"name": "ci 2", "models": ["a"], "addresses": None, "expires_at": "2027-01-01T00:00:00+02:00"}
    changed = await api.client.patch(path, json=body, headers={"if-match": tag})
    assert changed.status_code == 200, changed.text
    now = changed.json()
    assert now == made | body | {"expires_at": "2026-12-31T22:00:00Z"}
    assert (await api.client.get(path)).headers["etag"] == changed.headers["etag"] != tag
    for method, suffix, sent in (("PATCH", "", {"name": "x"}), ("POST", "/rotate", {}), ("DELETE", "", None)):
        status, error = await api.refused(method, path + suffix, json=sent, headers={"if-match": tag})
        assert (status, error["code"]) == (412, "precondition_failed")
    assert (await api.client.get(path)).json() == now, "and nothing was done"
    bare = await api.client.patch(path, json={"name": None, "models": None, "expires_at": None})
    assert bare.json() == now | {"name": "", "models": None, "expires_at": None}
    assert text not in read.text + changed.text + bare.text


async def test_a_rotation_shows_the_new_text_once(api: Api) -> None:
    made = await api.post("keys", team="core")
    first = await api.post(f"keys/{made['public_id']}/rotate")
    second = await api.client.post(f"/admin/v1/keys/{made['id']}/rotate", json={"grace": "0s"})
    assert second.status_code == 200
    texts = [made["key"], first["key"], second.json()["key"]]
    parsed = [parse_key(text) for text in texts]
    assert {one.public_id for one in parsed if one} == {made["public_id"]}
    assert len({one.secret for one in parsed if one}) == 3
    assert (first["older_ended"], second.json()["older_ended"]) == (False, True)
    assert second.json()["previous_expires_at"] == second.json()["rotated_at"]
    assert second.headers["etag"]
    read = await api.get(f"keys/{made['id']}")
    assert read == {name: value for name, value in second.json().items() if name not in {"key", "older_ended"}}
    for grace in ("31d", "x", "-1s", 5):
        status, error = await api.refused("POST", f"keys/{made['id']}/rotate", json={"grace": grace})
        assert (status, error["param"]) == (400, "grace")
    await api.client.delete(f"/admin/v1/keys/{made['id']}")
    assert (await api.refused("POST", f"keys/{made['id']}/rotate"))[0] == 409
    assert (await api.refused("PATCH", f"keys/{made['id']}", json={"name": "x"}))[0] == 409


async def test_what_is_no_change_is_refused_with_its_field(api: Api) -> None:
    made = await api.post("keys", team="core")
    for body, param in NO_CHANGES:
        status, error = await api.refused("PATCH", f"keys/{made['id']}", json=body)
        assert (status, error["param"]) == (400, param), error
    assert await api.get(f"keys/{made['id']}") == {name: value for name, value in made.items() if name != "key"}


async def test_lists_are_narrowed_by_the_query(api: Api) -> None:
    one = await api.post("keys", team="core", user="bob", name="laptop", models=["a"])
    other = await api.post("keys", team="core", name="ci")
    await api.client.delete(f"/admin/v1/keys/{other['id']}")
    for query, found in (
        ({"user": "bob"}, [one]),
        ({"status": "revoked"}, [other]),
        ({"name": "LAP"}, [one]),
        ({"model": "a", "status": "active"}, [one]),
        ({"model": "b"}, [other]),
        ({"status": "expired"}, []),
    ):
        assert [key["id"] for key in (await api.get("keys", **query))["data"]] == [key["id"] for key in found], query
    assert (await api.refused("GET", "keys?status=lost"))[1]["param"] == "status"
    assert (await api.refused("GET", "keys?team=nowhere"))[0] == 404


async def test_a_member_has_its_own_keys_and_no_say_in_limits(api: Api, postgres_dsn: str) -> None:
    service = await api.post("keys", team="core")
    bob = await as_member(postgres_dsn)
    made = await api.client.post("/admin/v1/keys", json={"team": "core"}, headers=bob)
    assert (made.status_code, made.json()["user"]) == (201, "bob")
    limited = {"team": "core", "tokens_per_minute": 5}
    assert (await api.refused("POST", "keys", json=limited, headers=bob))[0] == 403
    own = made.json()["id"]
    listed = (await api.client.get("/admin/v1/keys", headers=bob)).json()["data"]
    assert [key["id"] for key in listed] == [own], "what was refused was not made either"
    assert (await api.refused("PATCH", f"keys/{own}", json={"models": None}, headers=bob))[0] == 403
    assert (await api.client.patch(f"/admin/v1/keys/{own}", json={"name": "mine"}, headers=bob)).status_code == 200
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("DELETE", "")):
        body = {"name": "mine"} if method == "PATCH" else None
        status, error = await api.refused(method, f"keys/{service['id']}{path}", json=body, headers=bob)
        assert (status, error["detail"]) == (404, "no key with this id")
    unknown = make_key(PEPPERS).public_id
    assert (await api.refused("GET", f"keys/{unknown}", headers=bob))[1]["detail"] == "no key with this id"


async def test_the_document_shows_keys_as_they_are(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    names = {one.name for one in fields(ApiKey)}
    shown = 0
    for path, methods in document["paths"].items():
        if "/keys" not in path:
            continue
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                example = answer.get("content", {}).get("application/json", {}).get("example")
                if example is not None:
                    shown += 1
                    one = example["data"][0] if "data" in example else example
                    assert set(one) - {"key", "older_ended"} <= names, (path, status)
                    assert names - set(one) <= {"revoked_at", "user", "user_id"}, "nulls are left out of it"
    assert shown == 6
    for schema in ("NewKey", "ChangedKey", "KeyRotation"):
        assert document["components"]["schemas"][schema]["examples"]


def test_keys_are_changed_by_command(postgres_dsn: str, tmp_path: Path) -> None:
    penstock = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": postgres_dsn})
    team = make_tenant(postgres_dsn).team
    networks = ["--address", "10.0.0.0/8", "--address", "2001:db8::/32"]
    made = penstock("key", "create", "--team", team, *networks, "--json").document
    text = made.pop("key")
    assert made["addresses"] == ["10.0.0.0/8", "2001:db8::/32"]
    shown = penstock("key", "show", made["id"]).out
    assert "10.0.0.0/8, 2001:db8::/32" in shown
    assert text not in shown
    options = ["--name", "ci", "--address", "none", "--models", "a,b", "--expires-in", "30d"]
    changed = penstock("key", "update", made["id"], *options, "--json").document
    assert (changed["name"], changed["addresses"], changed["models"]) == ("ci", None, ["a", "b"])
    assert changed["expires_at"] > changed["created_at"]
    bare = penstock("key", "update", made["id"], "--name", "none", "--models", "none", "--expires-in", "none", "--json")
    assert bare.document == made | {"addresses": None}
    found = penstock("key", "list", "--status", "active", "--team", team, "--json").document
    assert bare.document in found
    rotated = penstock("key", "rotate", made["id"], "--json").document
    assert parse_key(rotated["key"]) is not None
    again = penstock("key", "rotate", made["public_id"], "--grace", "1h")
    assert again.out.splitlines()[1].startswith("sk-pst-")
    assert "the text before counts until" in again.out
    assert "a text from before that has ended now" in again.out
    refused = penstock("key", "rotate", made["id"], "--grace", "31d")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
