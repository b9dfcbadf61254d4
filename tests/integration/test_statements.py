"""Statements: exact with whatever comes late, frozen once closed, of the organization alone that they are about."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import json
import random
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway.admin.database import session_on
from gateway.admin.erasure import erase_organization
from gateway.admin.organizations import delete_organization
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.statement_sums import close_due
from gateway.admin.statements import close_statement, list_statements, month_of, parse_month, show_statement
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from tests.support.admin_api import serving
from tests.support.rollups import Owner
from tests.support.tenants import Tenant, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from gateway.storage.postgres import Connection, Pool, PoolProxy
    from tests.support.command import Penstock

AFTER = dt.timedelta(hours=24)
MONTHS = 4
KEY = "organization_id, team_id, served_model"
LEDGER = f"""
SELECT {KEY}, sum(requests)::numeric, sum(prompt_tokens)::numeric, sum(cost_pico_usd)::numeric
  FROM penstock_usage_parts('0'::xid8, '18446744073709551615'::xid8, '-infinity', $1)
 GROUP BY {KEY} HAVING sum(requests) <> 0
"""  # noqa: S608 - constants
SAID = """
SELECT organization_id, team_id, model, sum(requests)::numeric, sum(prompt_tokens), sum(cost_pico_usd)
  FROM statement_line GROUP BY 1, 2, 3 HAVING sum(requests) <> 0
"""


def month(ago: int) -> dt.date:
    """Return the first day of the month that was so many months ago."""
    first = month_of(dt.datetime.now(dt.UTC))
    for _ in range(ago):
        first = month_of(dt.datetime.combine(first, dt.time(), dt.UTC) - dt.timedelta(days=1))
    return first


def moment(of: dt.date, seconds: int = 0) -> dt.datetime:
    """Return a moment of a month."""
    return dt.datetime.combine(of, dt.time(), dt.UTC) + dt.timedelta(seconds=seconds)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database with places for the last months' first days."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=3) as opened:
        for ago in range(MONTHS + 1):
            await opened.execute("SELECT penstock_make_partitions($1, 2)", month(ago))
        yield opened


async def owners(pool: Pool, count: int) -> list[Owner]:
    """Make organizations, with two teams each."""
    made = []
    for number in range(count):
        organization = await pool.fetchval("INSERT INTO organization (name) VALUES ($1) RETURNING id", f"org-{number}")
        for team in ("<b>one</b>", "=two"):
            team_id = await pool.fetchval(
                "INSERT INTO team (organization_id, name) VALUES ($1, $2) RETURNING id", organization, team
            )
            made.append(Owner(organization, team_id))
    return made


async def test_all_statements_together_say_what_the_ledger_does(pool: Pool) -> None:
    """Whatever is late or corrected between two closings, and by however many replicas a month is closed."""
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)  # noqa: S311 - a test's choices; the seed is in its messages
    everybody = await owners(pool, 2)
    written: list[tuple[Owner, UUID, dt.datetime, str]] = []
    for ago in range(MONTHS, 0, -1):
        for _ in range(dice.randint(0, 25)):
            await use(pool, dice, everybody, written, until_ago=ago)
        if dice.random() < 0.5:
            await pool.execute("SELECT penstock_roll_up(1000)")
        closes_at = moment(month(ago - 1)) + AFTER
        assert await close_due(pool, after=AFTER, now=closes_at - dt.timedelta(seconds=1)) == 0, "it is not time yet"
        await asyncio.gather(*(close_due(pool, after=AFTER, now=closes_at) for _ in range(2)))
        until = moment(month(ago - 1))
        assert Counter(await pool.fetch(SAID)) == Counter(await pool.fetch(LEDGER, until)), (seed, ago)
        said = await pool.fetchval("SELECT coalesce(sum(cost_pico_usd), 0) FROM statement_line")
        used = "SELECT coalesce(sum(cost_pico_usd), 0) FROM penstock_usage_parts('0', '18446744073709551615', $1, $2)"
        assert said == await pool.fetchval(used, moment(month(MONTHS)), until), (seed, ago)
    rows = await pool.fetch("SELECT organization_id, array_agg(number ORDER BY month) AS n FROM statement GROUP BY 1")
    assert all(row["n"] == list(range(1, len(row["n"]) + 1)) for row in rows)


async def use(
    pool: Pool,
    dice: random.Random,
    everybody: list[Owner],
    written: list[tuple[Owner, UUID, dt.datetime, str]],
    *,
    until_ago: int,
) -> None:
    """Write an event of some month up to one, or a correction of one that was written."""
    if written and dice.random() < 0.4:
        owner, event_id, at, model = dice.choice(written)
        await owner.adjustment(pool, event_id, at, dice.randint(-5, 5), model=model, tokens=dice.randint(-9, 9))  # type: ignore[arg-type] # a pool runs statements, too
        return
    owner, model = dice.choice(everybody), dice.choice(("small", "large"))
    at = moment(month(dice.randint(until_ago, MONTHS)), dice.choice((0, 3599, 90_000)))
    event_id = await owner.event(pool, at, model=model, cost=dice.randrange(10**13))  # type: ignore[arg-type] # as above
    written.append((owner, event_id, at, model))


async def test_what_is_closed_stays_and_what_is_late_comes_next(pool: Pool) -> None:
    owner, other = await owners(pool, 1)
    organization = str(owner.organization_id)
    async with pool.acquire() as db:
        await owner.event(db, moment(month(3)), cost=100)
        for wrong, why in ((0, "has not ended"), (2, "close .* first")):
            with pytest.raises(Conflict, match=why):
                await close_statement(db, PLATFORM, month(wrong), organization=organization)
        draft = await show_statement(db, PLATFORM, month(3), organization=organization)
        first = await closed(db, 3, organization)
        assert (draft.draft, draft.number, draft.lines) == (True, None, first.lines)
        assert (first.draft, first.number, first.cost_usd) == (False, 1, "0.0000000001")
        event = await other.event(db, moment(month(3)), cost=7)
        await other.adjustment(db, event, moment(month(3)), -2)
        await owner.event(db, moment(month(2)), cost=1000)
        await owner.event(db, moment(month(1)), cost=10_000)
        assert await show_statement(db, PLATFORM, month(3), organization=organization) == first
        second = await closed(db, 2, organization)
        assert [(line.kind, line.of_month, line.team, line.cost_usd) for line in second.lines] == [
            ("usage", f"{month(2):%Y-%m}", "<b>one</b>", "0.000000001"),
            ("adjustment", f"{month(3):%Y-%m}", "=two", "0.000000000005"),
        ]
        assert (second.usage_usd, second.adjustments_usd) == ("0.000000001", "0.000000000005")
        with pytest.raises(Conflict, match="is closed already"):
            await closed(db, 2, organization)
        with pytest.raises(NotFound, match="had nothing to say"):
            await show_statement(db, PLATFORM, month(4), organization=organization)
        with pytest.raises(InvalidRequest, match="has not begun"):
            await show_statement(db, PLATFORM, month(0).replace(year=month(0).year + 1), organization=organization)
        later = await show_statement(db, PLATFORM, month(0), organization=organization)
        assert (later.draft, later.lines) == (True, ())
        summaries = await list_statements(db, PLATFORM, organization=organization)
        assert sorted((one.number, one.cost_usd) for one in summaries) == [
            (1, "0.0000000001"), (2, "0.000000001005")
        ]  # fmt: skip


async def closed(db: PoolProxy, ago: int, organization: str) -> Any:
    """Close a month in a transaction of its own."""
    async with db.transaction():
        return await close_statement(db, PLATFORM, month(ago), organization=organization)


LATE = """
INSERT INTO statement_line
SELECT statement_id, 99, organization_id, of_month, team_id, 'late', model, 1, 1, 1, 1, 1, 1, 1 FROM statement_line
"""


@pytest.mark.parametrize(
    "wish",
    [
        "UPDATE statement SET organization_name = 'x'",
        "DELETE FROM statement_line",
        "UPDATE statement_line SET cost_pico_usd = 0",
        "TRUNCATE statement_line, statement",
        LATE,
    ],
)
async def test_no_statement_is_changed_by_anybody(pool: Pool, wish: str) -> None:
    (owner, _) = await owners(pool, 1)
    await owner.event(pool, moment(month(1)))  # type: ignore[arg-type] # a pool runs statements, too
    assert await close_due(pool, after=AFTER, now=moment(month(0)) + AFTER) == 1
    with pytest.raises(asyncpg.RaiseError, match=r"append-only|is closed"):
        await pool.execute(wish)


async def test_erasing_takes_names_out_and_leaves_what_was_said(pool: Pool, postgres_dsn: str) -> None:
    gone = await asyncio.to_thread(make_tenant, postgres_dsn)
    stays = await asyncio.to_thread(make_tenant, postgres_dsn)
    for tenant in (gone, stays):
        await Owner(tenant.organization_id, tenant.team_id).event(pool, moment(month(1)), cost=5)  # type: ignore[arg-type] # as above
    await close_due(pool, after=AFTER, now=moment(month(0)) + AFTER)
    async with session_on(postgres_dsn) as db:
        renamed = "UPDATE team SET name = 'renamed' WHERE organization_id = $1"
        await db.execute(renamed, gone.organization_id)
        assert await names(db, gone) == {gone.organization, gone.team}
        await delete_organization(db, PLATFORM, gone.organization)
        assert (await show_statement(db, PLATFORM, month(1), organization=gone.organization)).number == 1
        erased = [each async for each in erase_organization(db, PLATFORM, gone.organization)][-1]
        assert (erased.cleared["statement"], erased.cleared["statement_line"]) == (1, 1)
        assert await names(db, gone) == {f"erased {gone.organization_id}", f"erased {gone.team_id}"}
        assert await names(db, stays) == {stays.organization, stays.team}
        assert await db.fetchval("SELECT sum(cost_pico_usd) FROM statement_line") == 10
        async for _ in erase_organization(db, PLATFORM, str(gone.organization_id), with_usage=True):
            pass
        assert await names(db, gone) == set()
        assert await db.fetchval("SELECT count(*) FROM statement") == 1


async def names(db: Connection | PoolProxy, tenant: Tenant) -> set[str]:
    """Return the names in an organization's statements."""
    rows = await db.fetch(
        "SELECT organization_name FROM statement WHERE organization_id = $1"
        " UNION SELECT team_name FROM statement_line WHERE organization_id = $1",
        tenant.organization_id,
    )
    return {row[0] for row in rows}


async def test_over_http_for_programs_and_people(pool: Pool, postgres_dsn: str) -> None:
    one, two = await owners(pool, 1)
    for owner in (one, two):
        await owner.event(pool, moment(month(1)), cost=10**12, model="<script>")  # type: ignore[arg-type] # as above
    query = {"organization": "org-0"}
    path = f"statements/{month(1):%Y-%m}"
    async with serving(postgres_dsn) as api:
        assert (await api.get(path, **query))["draft"] is True
        made = await api.post("statements", organization="org-0", month=f"{month(1):%Y-%m}")
        assert (made["number"], made["cost_usd"], made["source"], len(made["lines"])) == (1, "2", "manual", 2)
        assert await api.get(path, **query) == made
        (row,) = (await api.get("statements"))["data"]
        assert (row["organization"], row["number"]) == ("org-0", 1)
        text = (await api.client.get(f"/admin/v1/{path}", params=query | {"format": "csv"})).text
        lines = list(csv.DictReader(io.StringIO(text)))
        assert [(line["statement"], line["team"]) for line in lines] == [("1", "<b>one</b>"), ("1", "'=two")]
        assert sum(Decimal(line["cost_usd"]) for line in lines) == 2
        page = await api.client.get(f"/admin/v1/{path}", params=query | {"format": "html"})
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "&lt;b&gt;one&lt;/b&gt;" in page.text
        assert "2.00 USD" in page.text
        for never in ("<script", "<b>", "http:", "https:", "Draft"):
            assert never not in page.text
        draft = await api.client.get("/admin/v1/statements/" + f"{month(0):%Y-%m}", params=query | {"format": "html"})
        assert "Draft" in draft.text
        for wrong, status in (("2026-13", 400), ("x", 400), (f"{month(2):%Y-%m}", 404)):
            assert (await api.refused("GET", f"statements/{wrong}", params=query))[0] == status
        assert (await api.refused("GET", path))[1]["param"] == "organization"
        again = {"organization": "org-0", "month": f"{month(1):%Y-%m}"}
        assert (await api.refused("POST", "statements", json=again))[0] == 409


async def test_only_who_administers_an_organization_sees_its_statements(pool: Pool) -> None:
    mine, _, other, _ = await owners(pool, 2)
    async with pool.acquire() as db:
        for owner in (mine, other):
            await owner.event(db, moment(month(1)))
            await closed(db, 1, str(owner.organization_id))
        admin, member = Scope(mine.organization_id), Scope(mine.organization_id, mine.key_id, ())
        assert [one.organization_id for one in await list_statements(db, admin)] == [mine.organization_id]
        shown = await show_statement(db, admin, month(1), organization=None)
        assert shown.organization_id == mine.organization_id
        for reference in (str(other.organization_id), "org-1"):
            with pytest.raises(NotFound):
                await show_statement(db, admin, month(1), organization=reference)
            with pytest.raises(NotFound):
                await list_statements(db, admin, organization=reference)
        with pytest.raises(Forbidden):
            await close_statement(db, admin, month(2), organization="org-0")
        for look in (list_statements(db, member), show_statement(db, member, month(1), organization=None)):
            with pytest.raises(Forbidden):
                await look
    for wrong in ("2026-8", "26-08", "2026-08-01", "1969-12", ""):
        with pytest.raises(InvalidRequest):
            parse_month(wrong)


def test_by_command(penstock: Penstock) -> None:
    tenant = make_tenant(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    this = f"{month(0):%Y-%m}"
    assert penstock("statement", "list", "--json").document == []
    shown = penstock("statement", "show", this, "--org", tenant.organization)
    assert shown.out.splitlines()[-1] == f"{tenant.organization} {this}, draft, not closed: 0 USD"
    page = penstock("statement", "show", this, "--org", tenant.organization, "--format", "html").out
    told = penstock("statement", "show", this, "--org", tenant.organization, "--json").document
    wanted = penstock("statement", "show", this, "--org", tenant.organization, "--format", "json", "--output", "s.json")
    assert (wanted.code, wanted.out) == (0, "")
    assert json.loads((penstock.folder / "s.json").read_bytes()) == told
    assert page.startswith("<!doctype html>")
    refused = penstock("statement", "close", this, "--org", tenant.organization)
    assert refused.code == 1
    assert "has not ended" in refused.err
