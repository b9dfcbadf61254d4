"""How Postgres reads a report: from rollups, by indexes; no partition of the ledger from end to end."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.reports import questions
from bench.usage_events import Filled, fill
from gateway.admin.scope import PLATFORM, Scope
from gateway.admin.usage import Asked, usage_report
from gateway.admin.usage_filters import Filters
from gateway.admin.usage_sql import Grouping
from tests.support.postgres import connected
from tests.support.servers import Databases, run_blocking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.storage.postgres import Connection

EVENTS, DAYS = 24_000, 3
ROLLUPS = {"usage_day", "usage_hour", "usage_session"}
PARTITIONS = "SELECT relname FROM pg_class WHERE relname ~ '^usage_event_[0-9]+$' AND reltuples > 100"
BY_INDEX = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}
NOON = dt.datetime.now(dt.UTC).replace(hour=12, minute=34, second=0, microsecond=0) - dt.timedelta(days=1)
"""Far from midnight: a partition that has little, or the end of a period alone, is rightly read whole."""
RANDOM_READS = "SET random_page_cost = 1.1"  # as on the disks of today; by default Postgres thinks of turning ones


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[tuple[str, Filled]]:
    """The address of a database with some thousand events a day, and what is in it."""
    with databases.migrated() as dsn:
        yield dsn, run_blocking(_fill(dsn))


async def _fill(dsn: str) -> Filled:
    async with connected(dsn) as connection:
        return await fill(connection, EVENTS, days=DAYS, now=NOON)


@pytest.fixture
async def ledger(filled: tuple[str, Filled]) -> AsyncIterator[tuple[Connection, Filled]]:
    """A connection to that database, and what is in it."""
    async with connected(filled[0]) as connection:
        await connection.execute(RANDOM_READS)
        yield connection, filled[1]


class Explaining:
    """A connection that has each statement with parameters explained before it runs it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    async def fetch(self, statement: str, *values: object) -> Any:
        """Run a statement, and keep how Postgres does that."""
        plan = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *values)
        self.plans.append(json.loads(plan)[0]["Plan"])
        return await self._connection.fetch(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def plan_of(connection: Connection, asked: Asked, scope: Scope = PLATFORM) -> list[dict[str, Any]]:
    """Return all nodes of a report's plan."""
    explaining = Explaining(connection)
    async with connection.transaction():
        await usage_report(explaining, scope, asked)  # type: ignore[arg-type] # a connection in all that matters
    (plan,) = explaining.plans
    return list(nodes(plan))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's nodes."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_no_report_reads_a_partition_of_the_ledger_whole(ledger: tuple[Connection, Filled]) -> None:
    """The ends of a period are found by ids, the newest rows by the function of the tail; the rest is in rollups."""
    connection, filled = ledger
    partitions = {row["relname"] for row in await connection.fetch(PARTITIONS)}
    assert len(partitions) >= DAYS
    rollups = {}
    for name, asked in questions(filled).items():
        plan = await plan_of(connection, asked)
        tables = {node.get("Relation Name", node.get("Function Name")) for node in plan}
        assert "penstock_usage_parts" in tables
        rollups[name] = tables & ROLLUPS
        events = [node for node in plan if node.get("Relation Name") in partitions]
        assert events, name
        assert {node["Node Type"] for node in events} <= BY_INDEX, name
        indexes = [node for node in plan if node.get("Index Name", "").startswith("usage_event_")]
        assert all("event_id" in node["Index Cond"] for node in indexes), "those alone are for everybody's events"
    assert rollups["organizations"] == {"usage_day", "usage_hour"}
    assert rollups["every hour"] == {"usage_hour"}
    assert rollups["the 100 dearest sessions"] == {"usage_session"}
    assert rollups["sessions and engines, the last 24 hours"] == {"usage_session"}


async def test_what_is_one_organization_s_or_one_session_s_is_looked_up(ledger: tuple[Connection, Filled]) -> None:
    connection, filled = ledger
    everything = questions(filled)
    one_session = Asked(everything["organizations"].period, (Grouping.MODEL,), None, Filters(session=filled.session))
    for asked, indexes in (
        (everything["organizations"], {"usage_day_key"}),
        (everything["every hour"], {"usage_hour_key"}),
        (everything["the 100 dearest sessions"], {"usage_session_organization_id_idx", "usage_session_key"}),
        (one_session, {"usage_session_key"}),
    ):
        plan = await plan_of(connection, asked, Scope(filled.organization_id))
        assert indexes & {node.get("Index Name") for node in plan}, indexes
        assert not [node for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] in ROLLUPS]


async def test_the_sums_of_all_reports_are_those_of_the_ledger(ledger: tuple[Connection, Filled]) -> None:
    connection, filled = ledger
    raw = await connection.fetchval("SELECT count(*) FROM usage_event")
    assert raw == filled.events
    for name, asked in questions(filled).items():
        if asked.limit is None and asked.filters == Filters() and asked.period.since == filled.since:
            assert sum(row.requests for row in (await usage_report(connection, PLATFORM, asked)).rows) == raw, name
