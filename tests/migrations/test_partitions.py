"""The function that makes the ledger's daily partitions: days are UTC days, and asking again is harmless."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.units import new_event_id, opened_at
from tests.support.postgres import ask, connected

if TYPE_CHECKING:
    from gateway.storage.postgres import Connection

DAY = dt.date(2031, 3, 30)  # clocks change in Europe on this day
BOUNDS = """
SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class
 WHERE relispartition AND relkind = 'r' AND relname ~ $1 ORDER BY relname
"""
WRITE = """
INSERT INTO usage_open (event_id, opened_at, deadline_at, boot_id, organization_id, team_id, key_id, model,
    estimate_prompt_tokens, estimate_completion_tokens)
SELECT id, $1::text::timestamptz, now(), id, id, id, id, 'm', 0, 0 FROM gen_random_uuid() AS id
"""
MAKE = "SELECT penstock_make_partitions($1, $2)"


async def test_each_day_gets_a_partition_of_every_table(postgres_dsn: str) -> None:
    assert await ask(postgres_dsn, MAKE, DAY, 2) == 6
    async with connected(postgres_dsn) as connection:
        await connection.execute("SET timezone = 'UTC'")
        rows = await connection.fetch(BOUNDS, "_203103")
    assert [tuple(row) for row in rows] == [
        (f"{table}_{first}", f"FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00')")
        for table in ("usage_adjustment", "usage_event", "usage_open")
        for first, start, end in (("20310330", "2031-03-30", "2031-03-31"), ("20310331", "2031-03-31", "2031-04-01"))
    ]


async def test_what_is_there_is_not_made_again(postgres_dsn: str) -> None:
    assert await ask(postgres_dsn, MAKE, DAY, 2) == 6
    assert await ask(postgres_dsn, MAKE, DAY, 3) == 3
    assert await ask(postgres_dsn, MAKE, DAY, 3) == 0


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "Europe/Berlin"])
async def test_days_are_utc_days_in_every_session(postgres_dsn: str, zone: str) -> None:
    async with connected(postgres_dsn) as connection:
        await connection.execute(f"SET timezone = '{zone}'")
        assert await connection.fetchval(MAKE, DAY, 1) == 3
        for moment in ("2031-03-30 00:00:00", "2031-03-30 23:59:59.999999"):
            assert await _has_a_place(connection, f"{moment}+00")
        for moment in ("2031-03-29 23:59:59.999999", "2031-03-31 00:00:00"):
            assert not await _has_a_place(connection, f"{moment}+00")


async def test_the_migration_makes_the_days_around_today(postgres_dsn: str) -> None:
    """So the first event of a new installation finds its place, whatever the clock of its writer says within a day."""
    today = opened_at(new_event_id()).date()
    days = [today + dt.timedelta(days=offset) for offset in range(-1, 8)]
    async with connected(postgres_dsn) as connection:
        made = {row[0] for row in await connection.fetch(BOUNDS, "^usage_")}
    assert made == {
        f"{table}_{day:%Y%m%d}" for table in ("usage_open", "usage_event", "usage_adjustment") for day in days
    }


async def test_makers_at_the_same_time_do_not_meet(postgres_dsn: str) -> None:
    made = await asyncio.gather(*(ask(postgres_dsn, MAKE, DAY, 5) for _ in range(4)))
    assert sum(made) == 15


@pytest.mark.parametrize("days", [-1, 0, 401])
async def test_the_number_of_days_is_bounded(postgres_dsn: str, days: int) -> None:
    with pytest.raises(asyncpg.RaiseError, match="between 1 and 400"):
        await ask(postgres_dsn, MAKE, DAY, days)


async def _has_a_place(connection: Connection, moment: str) -> bool:
    """Whether an OPEN record of this moment can be written."""
    try:
        await connection.execute(WRITE, moment)
    except asyncpg.CheckViolationError:  # there are no checks on this table but its partitions' bounds
        return False
    return True
