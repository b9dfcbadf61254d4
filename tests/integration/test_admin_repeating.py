"""What is sent twice is done once, and nobody overwrites what somebody else has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.idempotency import IDEMPOTENCY_KEY
from gateway.admin.scope import PLATFORM
from tests.support.admin_api import PEPPERS, Api, serving
from tests.support.postgres import ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

WITH_KEY = {IDEMPOTENCY_KEY: "b7e3-first"}


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn) as running:
        yield running


async def make_key(api: Api, *, headers: dict[str, str] = WITH_KEY, name: str = "ci") -> httpx2.Response:
    return await api.client.post("/admin/v1/keys", json={"team": "core", "name": name}, headers=headers)


@pytest.fixture
async def team(api: Api) -> None:
    await api.post("organizations", name="acme")
    await api.post("teams", name="core", organization="acme")


@pytest.mark.usefixtures("team")
async def test_a_repeated_post_is_answered_as_the_first_was(api: Api) -> None:
    first, second = await make_key(api), await make_key(api)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert first.json()["key"].startswith("sk-pst-")
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert len((await api.get("keys"))["data"]) == 1


@pytest.mark.usefixtures("team")
async def test_two_at_once_are_one(api: Api) -> None:
    answers = await asyncio.gather(*(make_key(api) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len((await api.get("keys"))["data"]) == 1


@pytest.mark.usefixtures("team")
async def test_another_request_under_the_same_key_is_refused(api: Api) -> None:
    await make_key(api)
    other = await make_key(api, name="other")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.usefixtures("team")
async def test_what_failed_may_be_tried_again(api: Api) -> None:
    body = {"name": "two", "organization": "later"}
    refused = await api.client.post("/admin/v1/teams", json=body, headers=WITH_KEY)
    assert refused.status_code == 404
    await api.post("organizations", name="later")
    assert (await api.client.post("/admin/v1/teams", json=body, headers=WITH_KEY)).status_code == 201


@pytest.mark.usefixtures("team")
async def test_another_caller_has_keys_of_its_own(api: Api, postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        another = (await create_admin_credential(db, PLATFORM, PEPPERS)).key
    await make_key(api)
    theirs = await make_key(api, headers=WITH_KEY | {"authorization": f"Bearer {another}"})
    assert theirs.status_code == 201
    assert "idempotency-replayed" not in theirs.headers


@pytest.mark.usefixtures("team")
async def test_no_secret_is_kept(api: Api, postgres_dsn: str) -> None:
    key = (await make_key(api)).json()["key"]
    kept = await ask(postgres_dsn, "SELECT answer FROM idempotency_record")
    assert isinstance(kept, bytes)
    assert key.encode() not in kept
    assert b"public_id" not in kept


@pytest.mark.usefixtures("team")
async def test_records_go_after_a_day(api: Api, postgres_dsn: str) -> None:
    await make_key(api)
    await ask(postgres_dsn, "UPDATE idempotency_record SET created_at = now() - interval '25 hours'")
    assert "idempotency-replayed" not in (await make_key(api)).headers
    assert len((await api.get("keys"))["data"]) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_a_key_that_cannot_be_one(api: Api, key: str) -> None:
    answer = await make_key(api, headers={IDEMPOTENCY_KEY: key})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
