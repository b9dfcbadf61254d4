"""Pages of keys where one organization has 100,000 of them: from indexes, whatever is asked for, and whatever became
of most of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from gateway.admin.database import transaction_in
from gateway.admin.keys import KeyFilter, find_key, list_keys
from gateway.admin.page import Page
from gateway.admin.scope import PLATFORM, Scope
from tests.support.postgres import connected
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.storage.postgres import Connection
    from tests.support.servers import Databases

KEYS = 100_000
ROWS_READ_MAX = 5_500
"""Of the keys of one team, 5,000, and some that another index leads to."""
PLANNED_ANEW = 12
"""Runs of a statement after which Postgres may have given up planning it for its values."""

# Without the triggers: 100,000 notifications and entries of the audit log are no matter of this.
FILL = f"""
SET session_replication_role = replica;
INSERT INTO organization (name) VALUES ('acme'), ('globex');
INSERT INTO team (organization_id, name) SELECT id, 'team-' || n FROM organization, generate_series(1, 20) AS n;
INSERT INTO app_user (organization_id, name) SELECT id, 'user-' || n FROM organization, generate_series(1, 100) AS n;
INSERT INTO api_key (organization_id, team_id, user_id, public_id, secret_hmac, pepper_version, name,
                     expires_at, revoked_at)
SELECT team.organization_id, team.id,
       (SELECT id FROM app_user u WHERE u.organization_id = team.organization_id AND u.name = 'user-' || (1 + n % 200)),
       left(md5(team.id::text || n), 16), decode(repeat('00', 32), 'hex'), 0, 'key ' || n,
       CASE WHEN n % 400 = 0 THEN now() - interval '1 day' END, CASE WHEN n % 20 <> 0 THEN now() END
  FROM team JOIN organization o ON o.id = team.organization_id
       CROSS JOIN generate_series(1, CASE o.name WHEN 'acme' THEN {KEYS // 20} ELSE 10 END) AS n;
ANALYZE;
"""  # noqa: S608 - a number of this module

COUNTED = """
    SELECT sum(generic_plans) AS kept, sum(custom_plans) AS anew FROM pg_prepared_statements
    WHERE statement LIKE $1
"""


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[str]:
    """A database in which most keys of the large organization are revoked, as they are after years."""
    with databases.migrated() as dsn:
        run_blocking(_fill(dsn))
        yield dsn


async def _fill(dsn: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(FILL)


class Explained:
    """A database that also keeps how it came by the answers to questions about keys."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """Answer."""
        if "FROM api_key" in query:
            plan = await self._connection.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {query}", *arguments)
            self.plans.append(json.loads(plan)[0]["Plan"])
        return list(await self._connection.fetch(query, *arguments))

    async def fetchrow(self, query: str, *arguments: object) -> Any:
        """Answer with the first row."""
        rows = await self.fetch(query, *arguments)
        return rows[0] if rows else None


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a plan that read the table of keys, or an index of it."""
    found = [plan] if plan.get("Relation Name") == "api_key" or "api_key" in plan.get("Index Name", "") else []
    return [*found, *(node for part in plan.get("Plans", ()) for node in scans(part))]


def rows_read(node: dict[str, Any]) -> float:
    """Return how many rows a node has looked at."""
    removed = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    return float(node["Actual Rows"] + removed) * float(node["Actual Loops"])


async def ids(connection: Database, name: str) -> tuple[UUID, UUID, UUID]:
    row = await connection.fetchrow(
        """
        SELECT o.id, t.id, u.id FROM organization o JOIN team t ON t.organization_id = o.id
            JOIN app_user u ON u.organization_id = o.id WHERE (o.name, t.name, u.name) = ($1, 'team-3', 'user-20')
        """,
        name,
    )
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize("status", [None, "active", "expired", "revoked"])
@pytest.mark.parametrize("whose", ["organization", "team", "user", "person", "page"])
@pytest.mark.parametrize("name", ["acme", "globex"])
async def test_a_page_reads_no_more_than_it_must(filled: str, name: str, whose: str, status: Any) -> None:
    async with connected(filled) as connection:
        organization, team, user = await ids(connection, name)
        scope, wanted, after = Scope(organization), KeyFilter(status=status), None
        if whose == "team":
            wanted = KeyFilter(team=str(team), status=status)
        elif whose == "user":
            wanted = KeyFilter(user=str(user), status=status)
        elif whose == "person":
            scope = Scope(organization, user, (team,), (team,))
        elif whose == "page":
            after = await connection.fetchval("SELECT id FROM api_key ORDER BY id OFFSET $1 LIMIT 1", KEYS // 2)
        database = Explained(connection)
        await list_keys(cast("Database", database), scope, Page(100, after), wanted)
        (plan,) = database.plans
        for node in scans(plan):
            assert node["Node Type"] != "Seq Scan", plan
            assert rows_read(node) <= ROWS_READ_MAX, plan
        assert scans(plan)


async def test_one_key_is_one_row(filled: str) -> None:
    async with connected(filled) as connection:
        row = await connection.fetchrow("SELECT id, public_id FROM api_key OFFSET 5000 LIMIT 1")
        assert row is not None
        database = Explained(connection)
        for reference in (str(row["id"]), row["public_id"]):
            assert (await find_key(cast("Database", database), PLATFORM, reference)).id == row["id"]
        assert len(database.plans) == 2
        for plan in database.plans:
            assert all(rows_read(node) <= 1 and node["Node Type"] != "Seq Scan" for node in scans(plan)), plan


async def test_no_plan_is_made_for_all_values_at_once(filled: str) -> None:
    """A plan for any organization, or none, reads them all: pages are planned for what is asked."""
    async with asyncpg.create_pool(filled, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            organization, team, _ = await ids(connection, "acme")
        wishes = (KeyFilter(), KeyFilter(status="active"), KeyFilter(team=str(team), status="revoked"))
        for wanted in wishes * PLANNED_ANEW:
            async with transaction_in(pool, readonly=True) as db:
                await list_keys(db, Scope(organization), Page(100), wanted)
        async with pool.acquire() as connection:
            (counted,) = await connection.fetch(COUNTED, "%FROM api_key%ORDER BY%")
        assert counted["anew"] == len(wishes) * PLANNED_ANEW
        assert counted["kept"] == 0
