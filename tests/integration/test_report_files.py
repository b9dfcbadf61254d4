"""Reports as people and programs get them: whom they may be of, filters by name, formats, over HTTP and by command."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet

from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.usage import Asked, Period, usage_report
from gateway.admin.usage_filters import Filters
from gateway.admin.usage_sql import Grouping
from gateway.errors import InvalidRequest, NotFound
from tests.support.admin_api import serving
from tests.support.postgres import connected
from tests.support.rollups import Owner
from tests.support.servers import run_blocking
from tests.support.tenants import Tenant, make_tenant

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.storage.postgres import Connection
    from tests.support.command import Penstock

HOUR = dt.timedelta(hours=1)
AT = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0) - HOUR
LAST_DAY = Period(AT - 23 * HOUR, AT + HOUR)
FORMULA = "=HYPERLINK(1)"


async def tenants(dsn: str, count: int) -> list[Tenant]:
    """Make tenants."""
    return [await asyncio.to_thread(make_tenant, dsn) for _ in range(count)]


async def use(db: Connection, tenant: Tenant, *, session: str = FORMULA, service: bool = False) -> None:
    """Let a tenant's key, or a service key of its team, make one request."""
    user_id = None if service else tenant.user_id
    owner = Owner(tenant.organization_id, tenant.team_id, user_id, tenant.key_id)
    await owner.event(db, AT, session=session, cost=5)


async def test_a_filter_means_whom_it_names_within_reach(postgres_dsn: str) -> None:
    mine, other = await tenants(postgres_dsn, 2)
    async with connected(postgres_dsn) as db:
        for tenant in (mine, other):
            await use(db, tenant)
        await db.execute("UPDATE team SET deleted_at = now() WHERE id = $1", mine.team_id)
        for own, foreign in (
            (Filters(team=mine.team), Filters(team=other.team)),
            (Filters(user=mine.user), Filters(user=other.user)),
            (Filters(key=mine.key_public_id), Filters(key=other.key_public_id)),
        ):
            for scope in (PLATFORM, Scope(mine.organization_id)):
                (row,) = (await usage_report(db, scope, Asked(LAST_DAY, filters=own))).rows
                assert (row.id, row.requests) == (str(mine.organization_id), 1)
            with pytest.raises(NotFound):
                await usage_report(db, Scope(mine.organization_id), Asked(LAST_DAY, filters=foreign))
        for foreign in (Filters(team=str(other.team_id)), Filters(user=str(other.user_id)), Filters(session="x")):
            assert (await usage_report(db, Scope(mine.organization_id), Asked(LAST_DAY, filters=foreign))).rows == []
        await db.execute("UPDATE team SET name = 'same'")
        with pytest.raises(InvalidRequest, match="several organizations have a team 'same'"):
            await usage_report(db, PLATFORM, Asked(LAST_DAY, filters=Filters(team="same")))
        for wrong in ({"team": ""}, {"session": "a\nb"}, {"engine": "x" * 201}):
            with pytest.raises(InvalidRequest):
                Filters(**wrong)


async def test_a_person_sees_its_teams_and_what_is_its_own(postgres_dsn: str) -> None:
    (tenant,) = await tenants(postgres_dsn, 1)
    organization, me = tenant.organization_id, tenant.user_id
    async with connected(postgres_dsn) as db:
        await use(db, tenant)
        await use(db, tenant, service=True)
        elsewhere = Owner(organization, user_id=me)
        await elsewhere.event(db, AT)
        await Owner(organization).event(db, AT)
        for scope, requests in (
            (Scope(organization), 4),
            (Scope(organization, me, (tenant.team_id,), (tenant.team_id,)), 3),
            (Scope(organization, me, (), (tenant.team_id,)), 2),
        ):
            for by in set(Grouping) - {Grouping.ENGINE}:
                rows = (await usage_report(db, scope, Asked(LAST_DAY, (by,)))).rows
                assert sum(row.requests for row in rows) == requests, (scope.role, by)
        member = Scope(organization, me, (), (tenant.team_id,))
        assert (await usage_report(db, member, Asked(LAST_DAY, filters=Filters(user=tenant.user)))).rows
        await db.execute("INSERT INTO app_user (organization_id, name) VALUES ($1, 'someone')", organization)
        await db.execute("INSERT INTO team (organization_id, name) VALUES ($1, 'elsewhere')", organization)
        for unseen in (Filters(user="someone"), Filters(team="elsewhere")):
            with pytest.raises(NotFound):
                await usage_report(db, member, Asked(LAST_DAY, filters=unseen))


async def test_over_http_in_each_format(postgres_dsn: str) -> None:
    (tenant,) = await tenants(postgres_dsn, 1)
    async with connected(postgres_dsn) as db:
        await use(db, tenant)
    query = {"by": "session,team", "bucket": "hour", "organization": tenant.organization}
    async with serving(postgres_dsn) as api:
        document = await api.get("usage", **query)
        (row,) = document["data"]
        bucket = f"{AT:%Y-%m-%dT%H:%M:%SZ}"
        group = {"bucket": bucket, "session": FORMULA, "team_id": str(tenant.team_id), "team": tenant.team}
        assert (row["group"], row["id"], row["cost_usd"]) == (group, FORMULA, "0.000000000005")
        assert (document["by"], document["bucket"], document["more"]) == ("session,team", "hour", False)
        assert document["rolled_up_at"] is None
        for form, accept in (({"format": "csv"}, "*/*"), ({}, "text/html, text/csv;q=0.9, */*")):
            answer = await api.client.get("/admin/v1/usage", params=query | form, headers={"accept": accept})
            assert answer.headers["content-type"] == "text/csv; charset=utf-8"
            assert answer.headers["penstock-as-of"]
            (line,) = csv.DictReader(io.StringIO(answer.text))
            assert line == {
                **group, "session": "'" + FORMULA, "requests": "1", "prompt_tokens": "100", "cached_tokens": "40",
                "completion_tokens": "10", "reasoning_tokens": "3", "estimated": "0", "cost_usd": "0.000000000005",
                "opened_first": f"{AT:%Y-%m-%dT%H:%M:%S.%fZ}", "opened_last": f"{AT:%Y-%m-%dT%H:%M:%S.%fZ}",
            }  # fmt: skip
        answer = await api.client.get("/admin/v1/usage", params=query | {"format": "parquet"})
        (line,) = parquet.read_table(io.BytesIO(answer.content)).to_pylist()
        assert (line["session"], line["cost_usd"], line["bucket"]) == (FORMULA, Decimal("0.000000000005"), AT)
        for wrong, param in (
            ({"by": "nobody"}, "by"), ({"by": "team,team"}, "by"), ({"by": ""}, "by"), ({"bucket": "year"}, "bucket"),
            ({"format": "xlsx"}, "format"), ({"order": "cost", "after": "x"}, "after"), ({"engine": ""}, "engine"),
        ):  # fmt: skip
            period = {"since": "2026-08-01", "until": "2026-08-02"}
            status, problem = await api.refused("GET", "usage", params=period | wrong)
            assert (status, problem["param"]) == (400, param), wrong


def test_by_command_to_a_file(penstock: Penstock, postgres_dsn: str, tmp_path: Path) -> None:
    tenant = make_tenant(postgres_dsn)

    async def write() -> None:
        async with connected(postgres_dsn) as db:
            for _ in range(3):
                await use(db, tenant)
            await use(db, tenant, session="other")

    run_blocking(write())
    what = ("usage", "--by", "session,model", "--org", tenant.organization)
    shown = penstock(*what).out.splitlines()
    assert [line.split()[:3] for line in shown[1:3]] == [[FORMULA, "sim", "3"], ["other", "sim", "1"]]
    assert "as of" in shown[-1]
    output = tmp_path / "usage.parquet"
    for wrong in (("--format", "parquet"), ("--output", str(output)), ("--by", "nobody"), ("--limit", "0")):
        assert penstock(*what, *wrong).code != 0
    assert not output.exists()
    assert penstock(*what, "--format", "parquet", "--output", str(output)).code == 0
    assert [row["requests"] for row in parquet.read_table(output).to_pylist()] == [3, 1]
    first = penstock(*what, "--limit", "1", "--format", "csv")
    assert [row["session"] for row in csv.DictReader(io.StringIO(first.out))] == ["'" + FORMULA]
    assert "there are more rows" in penstock(*what, "--limit", "1").out
    days = penstock("usage", "--bucket", "day", "--json").document
    assert [(row["group"], row["requests"]) for row in days] == [({"bucket": f"{AT:%Y-%m-%dT00:00:00Z}"}, 4)]
