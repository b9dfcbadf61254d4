"""Webhooks as they are administered: by the API and by command, within an organization and over all of them."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.database import session_on, transaction_on
from gateway.admin.erasure import erase_organization
from gateway.admin.organizations import delete_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.webhook_deliveries import PINGS_WAITING_MAX, list_deliveries, ping_webhook, redeliver
from gateway.admin.webhooks import (
    WEBHOOKS_MAX,
    WebhookChange,
    change_webhook,
    create_webhook,
    delete_webhook,
    find_webhook,
    list_webhooks,
    rotate_webhook_secret,
)
from gateway.errors import Conflict, Forbidden, NotFound
from gateway.notify.events import KINDS
from gateway.notify.signing import SECRET_PREFIX
from tests.support.admin_api import serving
from tests.support.postgres import ask
from tests.support.tenants import make_tenant
from tests.support.webhooks import PEPPERS, make_webhook

if TYPE_CHECKING:
    from gateway.admin.database import Database
    from tests.support.command import Penstock

URL = "https://hooks.example.com/penstock"
HOUR = dt.timedelta(hours=1)


async def test_a_webhook_over_http(postgres_dsn: str) -> None:
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    async with serving(postgres_dsn) as api:
        made = await api.post("webhooks", url=URL, organization=tenant.organization, events=["budget.threshold"])
        path = f"webhooks/{made['id']}"
        secret = made.pop("secret")
        assert secret.startswith(SECRET_PREFIX)
        assert (made["status"], made["organization"]) == ("active", tenant.organization)
        assert (await api.get("webhooks"))["data"] == [made]
        assert (await api.get("webhooks", organization=tenant.organization))["data"] == [made]
        assert await api.get(path) == made | {"deliveries": []}

        ping = (await api.client.post(f"/admin/v1/{path}/test")).json()
        assert (ping["kind"], ping["status"]) == ("webhook.test", "waiting")
        again = await api.client.post(f"/admin/v1/{path}/deliveries/{ping['id']}/redeliver")
        assert (again.status_code, again.json()["id"]) == (202, ping["id"])
        assert (await api.get(path))["deliveries"] == [again.json()]

        rotated = await api.post(f"{path}/rotate", grace="2h")
        assert rotated["secret"] != secret
        assert rotated["secret_rotated_at"]

        tag = (await api.client.get(f"/admin/v1/{path}")).headers["etag"]
        other = "https://other.example.com/"
        changed = await api.client.patch(f"/admin/v1/{path}", json={"url": other}, headers={"if-match": tag})
        assert (changed.status_code, changed.json()["url"]) == (200, other)
        late = await api.client.patch(f"/admin/v1/{path}", json={"enabled": False}, headers={"if-match": tag})
        assert late.status_code == 412
        off = (await api.client.patch(f"/admin/v1/{path}", json={"enabled": False})).json()
        assert (off["status"], off["disabled_reason"]) == ("disabled", "disabled by an administrator")
        assert (await api.get(path))["deliveries"][0]["status"] == "given_up"
        assert (await api.refused("POST", f"{path}/test"))[0] == 409
        on = (await api.client.patch(f"/admin/v1/{path}", json={"enabled": True})).json()
        assert (on["status"], on["events"]) == ("active", ["budget.threshold"])

        gone = await api.client.delete(f"/admin/v1/{path}")
        assert gone.json()["id"] == made["id"]
        assert (await api.get("webhooks"))["data"] == []
    log = await ask(
        postgres_dsn, "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_event WHERE subject_kind = 'webhook'"
    )
    assert log == "create change change change change delete"
    whole = str(await ask(postgres_dsn, "SELECT jsonb_agg(a)::text FROM audit_event a"))
    assert "nonce" not in whole


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"url": "nonsense"}, "url"),
    ({"url": URL, "events": []}, "events"),
    ({"url": URL, "events": ["budget.treshold"]}, "events"),
    ({"url": URL, "description": "a\nb"}, "description"),
    ({"url": URL, "description": "a" * 201}, "description"),
    ({"url": URL, "secret": "mine"}, "secret"),
    ({"url": URL + "/" + "a" * 3000}, "url"),
    ({}, "url"),
)


async def test_what_is_no_webhook_is_refused(postgres_dsn: str) -> None:
    async with serving(postgres_dsn) as api:
        for wanted, param in REFUSED:
            status, problem = await api.refused("POST", "webhooks", json=wanted)
            assert (status, problem["param"]) == (400, param)


async def test_there_are_only_so_many(postgres_dsn: str) -> None:
    for _ in range(WEBHOOKS_MAX - 1):
        await make_webhook(postgres_dsn, URL)
    outcomes = await asyncio.gather(*(make_webhook(postgres_dsn, URL) for _ in range(3)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Conflict", "CreatedWebhook"]
    first = await ask(postgres_dsn, "SELECT id::text FROM webhook LIMIT 1")
    async with transaction_on(postgres_dsn) as db:
        for _ in range(PINGS_WAITING_MAX):
            await ping_webhook(db, PLATFORM, first)
        with pytest.raises(Conflict):
            await ping_webhook(db, PLATFORM, first)


async def reach(db: Database, scope: Scope, webhook: str, event: str) -> list[str]:
    """Return what somebody is answered who tries everything on a webhook."""
    answers: list[str] = []
    for attempt in (
        find_webhook(db, scope, webhook),
        list_deliveries(db, scope, webhook),
        ping_webhook(db, scope, webhook),
        redeliver(db, scope, webhook, event),
        change_webhook(db, scope, webhook, WebhookChange(enabled=False)),
        rotate_webhook_secret(db, scope, PEPPERS, webhook, grace=HOUR),
        delete_webhook(db, scope, webhook),
    ):
        try:
            await attempt
        except (NotFound, Forbidden) as error:
            answers.append(type(error).__name__)
        else:
            answers.append("done")
    return answers


async def test_nobody_reaches_beyond_its_organization(postgres_dsn: str) -> None:
    mine, other = [await asyncio.to_thread(make_tenant, postgres_dsn) for _ in range(2)]
    scope = Scope(mine.organization_id)
    theirs = [await make_webhook(postgres_dsn, URL, owner) for owner in (other.organization_id, None)]
    async with transaction_on(postgres_dsn) as db:
        own = await create_webhook(db, scope, PEPPERS, url=URL)
        assert own.about.organization_id == mine.organization_id, "the platform's are for the platform to make"
        assert own.about.events == KINDS
        assert [each.id for each in await list_webhooks(db, scope)] == [own.about.id]
        assert len(await list_webhooks(db, PLATFORM)) == 3
        with pytest.raises(NotFound):
            await create_webhook(db, scope, PEPPERS, url=URL, organization=other.organization)
        for webhook in theirs:
            event = await ping_webhook(db, PLATFORM, str(webhook.about.id))
            assert await reach(db, scope, str(webhook.about.id), str(event.id)) == ["NotFound"] * 7
        event = await ping_webhook(db, scope, str(own.about.id))
        for teams in ((), (mine.team_id,)):
            person = Scope(mine.organization_id, mine.user_id, teams=teams, member_of=(mine.team_id,))
            assert await reach(db, person, str(own.about.id), str(event.id)) == ["Forbidden"] * 7
            with pytest.raises(Forbidden):
                await list_webhooks(db, person)
            with pytest.raises(Forbidden):
                await create_webhook(db, person, PEPPERS, url=URL)
        assert await reach(db, scope, str(own.about.id), str(event.id)) == ["done"] * 7


async def test_erasing_an_organization_takes_what_was_told_of_it(postgres_dsn: str) -> None:
    gone, stays = [await asyncio.to_thread(make_tenant, postgres_dsn) for _ in range(2)]
    for owner in (gone.organization_id, stays.organization_id):
        webhook = await make_webhook(postgres_dsn, URL, owner)
        async with transaction_on(postgres_dsn) as db:
            await ping_webhook(db, PLATFORM, str(webhook.about.id))
    async with session_on(postgres_dsn) as session:
        await delete_organization(session, PLATFORM, gone.organization)
        async for erased in erase_organization(session, PLATFORM, str(gone.organization_id)):
            last = erased
    assert (last.removed["webhook"], last.removed["webhook_event"]) == (1, 1)
    for table in ("webhook", "webhook_event", "webhook_delivery", "webhook_secret"):
        assert await ask(postgres_dsn, f"SELECT count(*) FROM {table}") == 1  # noqa: S608 - names of this test


def test_a_webhook_by_command(penstock: Penstock, postgres_dsn: str) -> None:
    owner = make_tenant(postgres_dsn).organization
    made = penstock("webhook", "create", URL, "--org", owner, "--event", "key.revoked_used", "--json").document
    assert made["secret"].startswith(SECRET_PREFIX)
    webhook = made.pop("id")
    (listed,) = penstock("webhook", "list", "--org", owner, "--json").document
    assert (listed["id"], listed["events"]) == (webhook, ["key.revoked_used"])
    ping = penstock("webhook", "test", webhook, "--json").document
    assert penstock("webhook", "redeliver", webhook, ping["id"], "--json").document["status"] == "waiting"
    assert ping["id"] in penstock("webhook", "show", webhook).out
    rotated = penstock("webhook", "rotate", webhook, "--grace", "0s")
    assert rotated.out.splitlines()[1].startswith(SECRET_PREFIX)
    assert rotated.out.splitlines()[1] != made["secret"]
    assert penstock("webhook", "update", webhook, "--disable", "--json").document["status"] == "disabled"
    assert penstock("webhook", "update", webhook).code == 2
    assert penstock("webhook", "delete", webhook).out == f"webhook {webhook} is deleted\n"
