"""`penstock migrate`: from nothing, again, several at once, and against traffic that holds a lock."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.storage.dsn import asyncpg_dsn
from gateway.storage.migrate import alembic_config, upgrade
from gateway.storage.revision import head_revision, revisions
from gateway.storage.tables import metadata
from tests.support.catalog import described
from tests.support.command import Outcome, Penstock
from tests.support.postgres import ask, connected

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

FIRST = "0001"
AT_ONCE = 3
ADVISORY_LOCK = 0x70656E73746F636B
WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database AND datname = current_database()
 WHERE locktype = 'advisory' AND NOT granted
"""


async def upgrade_to(dsn: str, revision: str) -> None:
    """Bring a database to an older revision, as an older release did."""

    def run(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    url = asyncpg_dsn(dsn).replace("postgresql://", "postgresql+asyncpg://", 1)
    async with create_async_engine(url, poolclass=NullPool).connect() as connection:
        await connection.run_sync(run)


def test_the_names_of_the_migrations_are_their_revisions_in_order() -> None:
    """So that a replica knows what it needs without loading them."""
    scripts = ScriptDirectory.from_config(alembic_config())
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(revisions()))


async def test_an_empty_database_gets_every_table(empty_postgres_dsn: str) -> None:
    assert await upgrade(empty_postgres_dsn) == head_revision()
    assert await ask(empty_postgres_dsn, "SELECT version_num FROM alembic_version") == head_revision()
    assert set((await described(empty_postgres_dsn))["tables"]) == set(metadata.tables)


def test_the_command_may_be_repeated(empty_postgres_dsn: str, tmp_path: Path) -> None:
    penstock = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": empty_postgres_dsn})
    outcomes = [penstock("migrate", "--json") for _ in range(2)]
    assert [outcome.document for outcome in outcomes] == [{"revision": head_revision()}] * 2


async def test_what_is_there_survives(empty_postgres_dsn: str) -> None:
    await upgrade_to(empty_postgres_dsn, FIRST)
    await ask(empty_postgres_dsn, "INSERT INTO organization (name) VALUES ('acme')")
    await upgrade(empty_postgres_dsn)
    await upgrade(empty_postgres_dsn)
    assert await ask(empty_postgres_dsn, "SELECT array_agg(name) FROM organization") == ["acme"]


def test_several_at_once_take_turns(empty_postgres_dsn: str, tmp_path: Path) -> None:
    penstock = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": empty_postgres_dsn})

    def migrate(_: int) -> Outcome:
        return penstock("migrate", "--json")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        outcomes = list(threads.map(migrate, range(AT_ONCE)))
    assert [outcome.document for outcome in outcomes] == [{"revision": head_revision()}] * AT_ONCE


async def test_one_that_comes_second_waits_for_the_first(empty_postgres_dsn: str) -> None:
    """The first is any session that holds the lock; nothing is touched before it lets go."""
    await upgrade_to(empty_postgres_dsn, FIRST)
    async with connected(empty_postgres_dsn) as first:
        await first.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        second = asyncio.create_task(upgrade(empty_postgres_dsn))
        while not await first.fetchval(WAITING):
            assert not second.done()
        assert await first.fetchval("SELECT version_num FROM alembic_version") == FIRST
    assert await second == head_revision()


async def test_a_table_lock_is_not_waited_for_long_and_nothing_is_half_done(
    empty_postgres_dsn: str, tmp_path: Path
) -> None:
    """Behind a migration that waits for a lock, all traffic on that table would wait too."""
    penstock = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": empty_postgres_dsn})
    await upgrade_to(empty_postgres_dsn, FIRST)
    async with connected(empty_postgres_dsn) as traffic, traffic.transaction():
        await traffic.execute("INSERT INTO organization (name) VALUES ('acme')")
        outcome = await asyncio.to_thread(penstock, "migrate")
    password = urlsplit(empty_postgres_dsn).password
    assert password
    assert (outcome.code, outcome.out) == (1, "")
    assert "lock timeout" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert password not in outcome.err
    assert await ask(empty_postgres_dsn, "SELECT version_num FROM alembic_version") == FIRST
    assert await ask(empty_postgres_dsn, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'penstock_%'") == 0
    assert penstock("migrate", "--json").document == {"revision": head_revision()}
