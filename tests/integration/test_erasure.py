"""Deleting tenants and erasing them: keys stop, names are free, what stays tells of nobody, sums are as before."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from gateway.admin.database import Database, session_on, transaction_on
from gateway.admin.erasure import Erased, erase_organization
from gateway.admin.organizations import delete_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.domain.principal import Level
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from tests.support.rollups import EXACT, Owner, differing
from tests.support.tenants import Tenant, make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from tests.support.command import Penstock
    from tests.support.gateway import GatewayProcess

NOW = dt.datetime.now(dt.UTC)
EVENTS = 5
NO_WEBHOOKS = {"webhook_event": 0, "webhook": 0, "webhook_budget_change": 0}
PERSONAL = """
SELECT string_agg(to_jsonb(r)::text, ' ') FROM (
    SELECT to_jsonb(t) FROM organization t UNION ALL SELECT to_jsonb(t) FROM team t UNION ALL
    SELECT to_jsonb(t) FROM app_user t UNION ALL SELECT to_jsonb(t) FROM api_key t UNION ALL
    SELECT to_jsonb(t) FROM membership t UNION ALL SELECT to_jsonb(t) FROM limit_rule t UNION ALL
    SELECT to_jsonb(t) FROM usage_event t UNION ALL SELECT to_jsonb(t) FROM usage_open t UNION ALL
    SELECT to_jsonb(t) FROM usage_adjustment t UNION ALL SELECT to_jsonb(t) FROM usage_hour t UNION ALL
    SELECT to_jsonb(t) FROM usage_day t UNION ALL SELECT to_jsonb(t) FROM usage_session t UNION ALL
    SELECT to_jsonb(t) FROM usage_total t UNION ALL SELECT to_jsonb(t) FROM audit_event t) AS r
"""
COST = "SELECT sum(cost_pico_usd) FROM usage_day WHERE organization_id = $1"


def owner_of(tenant: Tenant) -> Owner:
    """Who a tenant's rows of the ledger belong to."""
    return Owner(tenant.organization_id, tenant.team_id, tenant.user_id, tenant.key_id)


async def erase(db: Database, tenant: Tenant, *, with_usage: bool = False, batch_rows: int = 100) -> Erased:
    """Erase to the end."""
    steps = erase_organization(db, PLATFORM, str(tenant.organization_id), with_usage=with_usage, batch_rows=batch_rows)
    async for erased in steps:
        last = erased
    return last


async def used(db: Any, tenant: Tenant) -> None:
    """Let a tenant use something: half of it rolled up, half of that for nobody in particular."""
    owner, service = owner_of(tenant), Owner(tenant.organization_id, tenant.team_id, None, tenant.key_id)
    for number in range(EVENTS):
        opened = await owner.opening(db, NOW, session=f"session of {tenant.organization}")
        await owner.event(db, NOW, event_id=opened, cost=10)
        await owner.adjustment(db, opened, NOW, -1)
        await service.event(db, NOW, cost=100)
        if number == EVENTS // 2:
            await db.execute("SELECT penstock_roll_up(1000)")


async def test_nothing_tells_who_it_was_and_the_sums_stay(postgres_dsn: str) -> None:
    gone, stays = [await asyncio.to_thread(make_tenant, postgres_dsn, requests_per_minute=10) for _ in range(2)]
    await asyncio.to_thread(gone.limit, Level.USER, tokens_per_minute=5)
    async with session_on(postgres_dsn) as db:
        for tenant in (gone, stays):
            await used(db, tenant)
        await delete_organization(db, PLATFORM, gone.organization)
        erased = await erase(db, gone, batch_rows=2)
        assert erased.removed == {
            "limit_rule": 2, "membership": 1, "api_key": 1, "admin_credential": 0, "app_user": 1, "team": 1,
            **NO_WEBHOOKS
        }  # fmt: skip
        assert erased.cleared.pop("audit_event") > 0
        assert erased.cleared == {
            "usage_event": 2 * EVENTS, "usage_adjustment": EVENTS, "usage_open": EVENTS,
            "usage_hour": 1, "usage_day": 1, "usage_session": 2, "statement": 0, "statement_line": 0
        }  # fmt: skip
        assert await differing(db) == EXACT
        await db.execute("SELECT penstock_roll_up(1000)")
        assert await db.fetchval(COST, gone.organization_id) == EVENTS * 109
        left = await db.fetchval(PERSONAL)
        for secret in (gone.organization, gone.team, gone.user, str(gone.user_id), gone.key_public_id):
            assert secret not in left
        for kept in (stays.organization, stays.team, stays.user, str(stays.user_id), stays.key_public_id, "session"):
            assert kept in left
        again = await erase(db, gone)
        assert not any({**again.removed, **again.cleared}.values())


async def test_with_its_usage_nothing_but_its_id_is_left(postgres_dsn: str) -> None:
    gone, stays = [await asyncio.to_thread(make_tenant, postgres_dsn) for _ in range(2)]
    async with session_on(postgres_dsn) as db:
        for tenant in (gone, stays):
            await used(db, tenant)
        await delete_organization(db, PLATFORM, gone.organization)
        await erase(db, gone, with_usage=True)
        assert await differing(db) == EXACT
        await db.execute("SELECT penstock_roll_up(1000)")
        assert await db.fetchval(COST, gone.organization_id) is None
        assert await db.fetchval(COST, stays.organization_id) == EVENTS * 109
        left = await db.fetchval(PERSONAL)
        assert str(gone.key_id) not in left
        assert left.count(str(gone.organization_id)) == 4, "its id, in its name, its team's, and that it is erased"


async def test_what_was_cut_off_is_finished_by_doing_it_again(postgres_dsn: str) -> None:
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    async with session_on(postgres_dsn) as db:
        await used(db, tenant)
        await delete_organization(db, PLATFORM, tenant.organization)
        steps = erase_organization(db, PLATFORM, tenant.organization)
        await anext(steps)
        await steps.aclose()  # type: ignore[attr-defined] # it is an async generator
        await erase(db, tenant)
        assert str(tenant.user_id) not in await db.fetchval(PERSONAL)


async def test_only_what_is_deleted_is_erased(postgres_dsn: str) -> None:
    tenant = await asyncio.to_thread(make_tenant, postgres_dsn)
    async with session_on(postgres_dsn) as db:
        with pytest.raises(Conflict, match="is not deleted; first: penstock org delete"):
            await erase(db, tenant)
        with pytest.raises(NotFound):
            await anext(erase_organization(db, PLATFORM, str(uuid4())))
        with pytest.raises(Forbidden):
            await anext(erase_organization(db, Scope(tenant.organization_id), tenant.organization))


async def test_namesakes_are_told_apart_by_id(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        await db.execute("INSERT INTO organization (name, deleted_at) SELECT 'acme', now() FROM generate_series(1, 2)")
    async with session_on(postgres_dsn) as db:
        with pytest.raises(InvalidRequest, match="give an id"):
            await anext(erase_organization(db, PLATFORM, "acme"))


def test_deleting_stops_keys_and_frees_names(gateway: GatewayProcess, penstock: Penstock) -> None:
    """Of a user, a team and an organization; each is refused by the replica within a second, and can be made again."""
    for kind in ("user", "team", "org"):
        tenant = make_tenant(penstock.variables["PENSTOCK_POSTGRES_DSN"])
        client = gateway.http(tenant.key)
        assert client.get("/v1/models").status == 200
        name = {"user": tenant.user, "team": tenant.team, "org": tenant.organization}[kind]
        where = [] if kind == "org" else ["--org", tenant.organization]
        assert penstock(kind, "delete", name, *where, "--json").document["name"] == name
        refused_within_a_second(client)
        assert penstock(kind, "delete", name, *where).code != 0
        assert penstock(kind, "create", name, *where, "--json").document["name"] == name


def refused_within_a_second(client: Any) -> None:
    """Wait until the key is refused, for as long as a revocation may take."""
    wait_for(lambda: client.get("/v1/models").status == 401, "the key is refused", 1.0)


def test_erasing_wants_a_yes_and_says_what_went(penstock: Penstock) -> None:
    tenant = make_tenant(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    assert penstock("org", "delete", tenant.organization).code == 0
    refused = penstock("org", "erase", tenant.organization)
    assert refused.code != 0
    assert "--yes" in refused.err
    told = penstock("org", "erase", tenant.organization, "--yes")
    assert told.out == (
        f"organization {tenant.organization_id} is erased:"
        " 1 membership, 1 api_key, 1 app_user, 1 team, 11 audit_event\n"
    )
    document = penstock("org", "erase", str(tenant.organization_id), "--yes", "--json").document
    assert document["organization_id"] == str(tenant.organization_id)
    assert set(document["removed"].values()) == {0}
