"""Sums by session begin with what the ledger has of before, and no pass of the function of before slips in."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets

import asyncpg
import pytest

from gateway.storage.migrate import upgrade
from tests.migrations.test_migrating import upgrade_to
from tests.support.postgres import ask, connected
from tests.support.rollups import EXACT, Owner, differing
from tests.support.waiting import wait_until_asked

BEFORE = "0010"
NOW = dt.datetime.now(dt.UTC)
OLD = (NOW - dt.timedelta(days=10)).replace(hour=12, minute=0, second=0, microsecond=0)
BY_SESSION = "SELECT session, sum(requests)::int, sum(cost_pico_usd)::int FROM usage_session GROUP BY 1 ORDER BY 1"
SAME_SUMS = """
SELECT count(*) FROM (
    SELECT hour, sum(requests), sum(cost_pico_usd) FROM usage_hour GROUP BY hour
    EXCEPT SELECT hour, sum(requests), sum(cost_pico_usd) FROM usage_session GROUP BY hour) AS differing
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def test_what_is_rolled_up_already_is_cut_by_session(empty_postgres_dsn: str) -> None:
    """As far as there are events: what is left of an hour whose events are gone is of no session."""
    await upgrade_to(empty_postgres_dsn, BEFORE)
    owner = Owner()
    async with connected(empty_postgres_dsn) as db:
        await db.execute("SELECT penstock_make_partitions($1, 1), penstock_make_partitions($2, 1)", OLD.date(), NOW)
        for at in (OLD, NOW):
            corrected = await owner.event(db, at, session="a", cost=10)
            await owner.adjustment(db, corrected, at, -3)
            await owner.event(db, at, session="b", cost=100)
            await owner.event(db, at, session=None, cost=1000)
        await db.execute("SELECT penstock_roll_up(1000)")
        assert await db.fetchval("SELECT penstock_retire_partition('usage_open', $1)", OLD.date()) == "dropped"
        assert await db.fetchval("SELECT penstock_retire_partition('usage_event', $1)", OLD.date()) == "dropped"
        await owner.event(db, NOW, session="a", cost=5)
        await upgrade(empty_postgres_dsn)
        sessions = [("a", 1, 7), ("b", 1, 100), (None, 4, 2107)]
        assert [tuple(row) for row in await db.fetch(BY_SESSION)] == sessions
        assert await db.fetchval(SAME_SUMS) == 0
        await db.execute("SELECT penstock_roll_up(1000)")
        assert [tuple(row) for row in await db.fetch(BY_SESSION)] == [("a", 2, 12), *sessions[1:]]
        assert await db.fetchval(SAME_SUMS) == 0


async def test_a_pass_that_waited_for_the_migration_does_nothing(empty_postgres_dsn: str) -> None:
    """It would have rolled up as before, and left sessions out."""
    await upgrade_to(empty_postgres_dsn, BEFORE)
    async with connected(empty_postgres_dsn) as first, connected(empty_postgres_dsn) as second:
        await Owner().event(first, NOW)
        await first.execute("BEGIN")
        await first.execute("SELECT FROM rollup_state FOR UPDATE")
        migration = asyncio.create_task(upgrade(empty_postgres_dsn))
        await wait_until_asked(lambda: waiting(first, 1), "the migration waits")
        late = asyncio.create_task(second.execute("SELECT penstock_roll_up(10)"))
        await wait_until_asked(lambda: waiting(first, 2), "the pass waits behind it")
        await first.execute("COMMIT")
        await migration
        with pytest.raises(asyncpg.NoDataFoundError):
            await late
        assert await second.fetchval("SELECT rolled_up FROM penstock_roll_up(10)") == 1
        assert await differing(second) == EXACT


async def waiting(connection: asyncpg.Connection[asyncpg.Record], count: int) -> bool:
    """Whether so many sessions wait for a lock."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return bool(await connection.fetchval(WAITING) == count)


async def test_a_role_that_served_before_serves_on(empty_postgres_dsn: str) -> None:
    await upgrade_to(empty_postgres_dsn, BEFORE)
    role = f"penstock_serve_{secrets.token_hex(4)}"
    await ask(empty_postgres_dsn, f"CREATE ROLE {role}")
    try:
        for what in ("SELECT ON usage_hour", "EXECUTE ON FUNCTION penstock_usage_parts, penstock_roll_up"):
            await ask(empty_postgres_dsn, f"GRANT {what} TO {role}")
        await upgrade(empty_postgres_dsn)
        async with connected(empty_postgres_dsn) as db:
            await db.execute(f"SET ROLE {role}")
            assert await db.fetchval("SELECT count(*) FROM usage_session") == 0
            assert await db.fetchval("SELECT rolled_up FROM penstock_roll_up(10)") == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute("DELETE FROM usage_session")
            await db.execute("RESET ROLE")
    finally:
        await ask(empty_postgres_dsn, f"DROP OWNED BY {role}")
        await ask(empty_postgres_dsn, f"DROP ROLE {role}")
