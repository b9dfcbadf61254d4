"""Reports of more rows than a page has: nothing is lost, nothing comes twice, and periods of two times do not mix."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.database import Database, transaction_on
from gateway.admin.keys import ApiKey, NewApiKey, create_key
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team
from gateway.admin.usage import ROWS_MAX, Period, UsageRow
from gateway.admin.usage_sql import Grouping
from gateway.admin.users import create_user
from gateway.errors import InvalidRequest
from tests.support.admin_api import PEPPERS, Api, serving
from tests.support.ledger import write_usage
from tests.support.usage import usage_page, usage_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.command import Penstock

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)
LAST_DAY = Period(NOW - 24 * HOUR, NOW)
USERS = 5


async def make_users(db: Database) -> list[ApiKey]:
    """Make keys of five users and one of nobody, and an event of each; the cost tells them apart."""
    await create_organization(db, PLATFORM, "acme")
    await create_team(db, PLATFORM, "core", organization="acme")
    names: list[str | None] = [None]
    for number in range(USERS):
        user = await create_user(db, PLATFORM, f"user-{number}", organization="acme", teams=["core"])
        names.append(user.name)
    keys = [(await create_key(db, PLATFORM, PEPPERS, NewApiKey(team="core", user=name))).about for name in names]
    for number, key in enumerate(keys):
        await write_usage(db, key, NOW - HOUR, cost_pico_usd=10**number)
    return keys


async def walk(db: Database, by: Grouping, limit: int) -> list[UsageRow]:
    """Return the rows of all pages, one after the other."""
    page = await usage_page(db, PLATFORM, by, LAST_DAY, limit=limit)
    rows = page.rows
    while page.next_after is not None:
        assert len(page.rows) == limit
        page = await usage_page(db, PLATFORM, by, LAST_DAY, limit=limit, after=page.next_after)
        rows = rows + page.rows
    return rows


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn) as running:
        yield running


@pytest.mark.parametrize("limit", range(1, USERS + 3))
async def test_pages_together_are_the_report(postgres_dsn: str, limit: int) -> None:
    """Whatever the size: the last page may be full, and the row of those without a user comes last."""
    async with transaction_on(postgres_dsn) as db:
        await make_users(db)
        whole = await usage_rows(db, PLATFORM, Grouping.USER, LAST_DAY)
        rows = await walk(db, Grouping.USER, limit)
    assert rows[-1].id is None
    assert len(rows) == USERS + 1
    assert sorted(rows, key=lambda row: -Decimal(row.cost_usd)) == whole


async def test_who_becomes_dearer_between_two_pages_is_neither_lost_nor_counted_twice(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        keys = await make_users(db)
        first = await usage_page(db, PLATFORM, Grouping.KEY, LAST_DAY, limit=2)
        for key in keys:
            await write_usage(db, key, NOW - HOUR, cost_pico_usd=10**9)
        rows = first.rows
        after = first.next_after
        while after is not None:
            page = await usage_page(db, PLATFORM, Grouping.KEY, LAST_DAY, limit=2, after=after)
            rows, after = rows + page.rows, page.next_after
    assert sorted(str(row.id) for row in rows) == sorted(str(key.id) for key in keys)


async def test_a_page_has_a_row_at_least_and_at_most_its_bound(postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        for limit in (0, -1, ROWS_MAX + 1):
            with pytest.raises(InvalidRequest, match="limit must be 1 to"):
                await usage_page(db, PLATFORM, Grouping.ORG, LAST_DAY, limit=limit)
        nothing = await usage_page(db, PLATFORM, Grouping.ORG, LAST_DAY)
    assert (nothing.rows, nothing.next_after) == ([], None)


async def test_the_api_tells_what_the_next_page_starts_after(api: Api, postgres_dsn: str) -> None:
    async with transaction_on(postgres_dsn) as db:
        keys = await make_users(db)
    query = {"by": "key", "since": "7d", "limit": "4"}
    first = await api.get("usage", **query)
    query |= {"since": first["since"], "until": first["until"], "after": first["next_after"]}
    second = await api.get("usage", **query)
    assert (len(first["data"]), len(second["data"])) == (4, 2)
    assert (second["since"], second["until"]) == (first["since"], first["until"])
    assert second["next_after"] is None
    assert {row["id"] for row in first["data"] + second["data"]} == {str(key.id) for key in keys}
    assert (await api.get("usage", by="key"))["next_after"] is None


async def test_the_api_refuses_a_page_of_another_period(api: Api) -> None:
    moment = "2026-08-01"
    wrong: list[dict[str, Any]] = [{}, {"since": moment}, {"until": moment}, {"since": "7d", "until": moment}]
    for period in (*wrong, {"since": moment, "until": "1h"}):
        status, error = await api.refused("GET", "usage", params={"after": "x", **period})
        assert (status, error["param"]) == (400, "after"), period
    fixed = {"since": moment, "until": "2026-08-02"}
    assert (await api.refused("GET", "usage", params={"after": "\x00", **fixed}))[1]["param"] == "after"
    assert (await api.get("usage", after="x", **fixed))["data"] == []
    for limit in ("0", str(ROWS_MAX + 1), "x"):
        assert (await api.refused("GET", "usage", params={"limit": limit}))[1]["param"] == "limit"


def test_the_command_answers_with_every_row(penstock: Penstock, postgres_dsn: str) -> None:
    """More rows than a page may have: scripts add them up, and would not know that some are missing."""
    count = ROWS_MAX + 1

    async def write() -> None:
        async with transaction_on(postgres_dsn) as db:
            event_id = await write_usage(db, (await make_users(db))[0], NOW - 2 * HOUR, model="model-0")
            await db.execute(
                """
                INSERT INTO usage_event
                SELECT (jsonb_populate_record(event, jsonb_build_object(
                    'event_id', gen_random_uuid(), 'served_model', 'model-' || number, 'cost_pico_usd', number))).*
                FROM usage_event AS event, generate_series(1, $2) AS number WHERE event.event_id = $1
                """,
                event_id,
                count - 1,
            )

    asyncio.run(write())
    period = ["--since", (NOW - 3 * HOUR).isoformat(), "--until", (NOW - HOUR - HOUR / 2).isoformat()]
    rows = penstock("usage", "--by", "model", *period, "--json").document
    assert {row["id"] for row in rows} == {f"model-{number}" for number in range(count)}
    assert len(rows) == count
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal(1 + count * (count - 1) // 2) / 10**12
    table = penstock("usage", "--by", "model", *period).out.splitlines()
    assert len(table) == 1 + count + 1, "a title, the rows and the period"
