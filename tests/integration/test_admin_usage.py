"""Usage reports over ledger rows: exact sums, periods, names that outlive their tenants."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import asyncpg
import pytest

from gateway.admin.database import Database, transaction_on
from gateway.admin.keys import ApiKey, NewApiKey, create_key
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.teams import create_team
from gateway.admin.usage import Period
from gateway.admin.usage_sql import Grouping
from gateway.admin.users import create_user
from gateway.authenticate.key import Peppers
from gateway.errors import StorageUnavailable
from tests.support.ledger import write_usage
from tests.support.usage import usage_rows

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)
LAST_DAY = Period(NOW - 24 * HOUR, NOW)


async def key_of(db: Database, organization: str, *, user: str | None = None) -> ApiKey:
    await create_organization(db, PLATFORM, organization)
    await create_team(db, PLATFORM, "core", organization=organization)
    if user:
        await create_user(db, PLATFORM, user, organization=organization, teams=["core"])
    wanted = NewApiKey(team="core", organization=organization, user=user)
    return (await create_key(db, PLATFORM, Peppers({}), wanted)).about


async def test_sums_are_exact_and_the_dearest_comes_first(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        acme, globex = await key_of(db, "acme", user="bob"), await key_of(db, "globex")
        await write_usage(db, acme, NOW - HOUR, cost_pico_usd=1)
        await write_usage(db, acme, NOW - 2 * HOUR, cost_pico_usd=10**24, coverage="estimated")
        await write_usage(db, globex, NOW - HOUR, tokens=(2**62, 0, 2**62), cost_pico_usd=5)
        await write_usage(db, globex, NOW - HOUR, tokens=(2**62, 0, 2**62), cost_pico_usd=0)
        rows = await usage_rows(db, PLATFORM, Grouping.ORG, LAST_DAY)
    assert [(row.id, row.name) for row in rows] == [
        (str(acme.organization_id), "acme"),
        (str(globex.organization_id), "globex"),
    ]
    first, second = rows
    assert (first.requests, first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (2, 200, 80, 20)
    assert first.cost_usd == "1000000000000.000000000001"
    assert first.estimated == 1
    assert (second.prompt_tokens, second.completion_tokens) == (2**63, 2**63)
    assert Decimal(second.cost_usd) == Decimal("0.000000000005")


@pytest.mark.parametrize("by", list(Grouping))
async def test_every_grouping_adds_up_to_the_same(postgres_dsn: str, by: Grouping) -> None:
    async with transaction_on(postgres_dsn) as db:
        keys = [await key_of(db, "acme", user="bob"), await key_of(db, "globex")]
        for key in keys:
            await write_usage(db, key, NOW - HOUR, model="small", cost_pico_usd=3)
            await write_usage(db, key, NOW - HOUR, model="large", cost_pico_usd=4)
        rows = await usage_rows(db, PLATFORM, by, LAST_DAY)
        only = await usage_rows(db, PLATFORM, by, LAST_DAY, organization="acme")
    expected = {
        Grouping.ORG: {"acme", "globex"},
        Grouping.TEAM: {"core"},
        Grouping.USER: {"bob", None},
        Grouping.KEY: {key.public_id for key in keys},
        Grouping.MODEL: {"small", "large"},
        Grouping.ENGINE: {None},
        Grouping.SESSION: {None},
    }
    assert {row.name for row in rows} == expected[by]
    assert sum(row.requests for row in rows) == 4
    assert sum(Decimal(row.cost_usd) for row in rows) == Decimal("0.000000000014")
    assert sum(row.requests for row in only) == 2


async def test_a_period_holds_its_start_and_not_its_end(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        key = await key_of(db, "acme")
        for opened_at in (NOW - 2 * HOUR, NOW - HOUR, NOW):
            await write_usage(db, key, opened_at)
        rows = await usage_rows(db, PLATFORM, Grouping.KEY, Period(NOW - 2 * HOUR, NOW))
        nothing = await usage_rows(db, PLATFORM, Grouping.KEY, Period(NOW - 9 * HOUR, NOW - 8 * HOUR))
    assert [row.requests for row in rows] == [2]
    assert nothing == []


async def test_deleted_tenants_keep_their_names(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        key = await key_of(db, "acme")
        await write_usage(db, key, NOW - HOUR)
        await db.execute("UPDATE team SET deleted_at = now()")
        await db.execute("UPDATE organization SET deleted_at = now()")
        assert [row.name for row in await usage_rows(db, PLATFORM, Grouping.TEAM, LAST_DAY)] == ["core"]


async def test_an_organization_sees_its_own_usage_only(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        acme, globex = await key_of(db, "acme"), await key_of(db, "globex")
        for key in (acme, globex):
            await write_usage(db, key, NOW - HOUR)
        for by in set(Grouping) - {Grouping.ENGINE}:  # engines are the platform's alone
            (row,) = await usage_rows(db, Scope(acme.organization_id), by, LAST_DAY)
            assert row.requests == 1


async def test_a_report_that_takes_too_long_says_what_to_do(postgres_dsn: str) -> None:
    impatient = await asyncpg.connect(postgres_dsn, command_timeout=0.1)
    try:
        async with transaction_on(postgres_dsn) as db:
            await db.execute("LOCK TABLE usage_event IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StorageUnavailable, match="ask for a shorter time"):
                await usage_rows(impatient, PLATFORM, Grouping.ORG, LAST_DAY)
    finally:
        await impatient.close()
