"""Runs the migrations: one at a time over all replicas, and never waiting long for a lock that traffic holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.errors import StorageUnavailable
from gateway.storage.dsn import asyncpg_dsn, redacted
from gateway.storage.revision import head_revision, script_location

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK_TIMEOUT_S = 5
"""How long one DDL statement may wait for a table lock: behind it, all traffic on that table waits too."""

QUEUE_TIMEOUT_S = 300
"""How long a second `penstock migrate` waits for the first."""

_ADVISORY_LOCK = 0x70656E73746F636B  # "penstock" in ASCII
_PARTITION = re.compile(r"usage_(?:open|event|adjustment)_\d{8}")


def alembic_config() -> Config:
    """Return the configuration that alembic's own commands need; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(script_location()))
    return config


def include_object(thing: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:  # noqa: FBT001 - alembic calls it so
    """Leave partitions out of alembic's comparisons: they are made while the gateway runs."""
    del thing, reflected, compare_to
    return not (kind == "table" and _PARTITION.fullmatch(name or ""))


async def upgrade(direct_dsn: str) -> str:
    """Bring the database to this release's newest revision and return its name.

    Args:
        direct_dsn: address of Postgres itself; advisory locks do not survive a transaction pooler.

    Raises:
        StorageUnavailable: Postgres is not reachable, or a lock was not granted in time; nothing was changed halfway,
            since each migration is one transaction.
    """
    url = asyncpg_dsn(direct_dsn).replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": 10})
    try:
        async with engine.connect() as connection:
            # Session locks, outside any transaction: each migration commits on its own underneath.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(f"SET lock_timeout = '{QUEUE_TIMEOUT_S}s'"))
            await connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
            async with engine.connect() as worker:
                await worker.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
                await worker.commit()
                await worker.run_sync(_upgrade_to_head)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        raise StorageUnavailable(f"cannot migrate {redacted(direct_dsn)}: {_reason(error)}") from error
    finally:
        await engine.dispose()
    return head_revision()


def _reason(error: BaseException) -> str:
    """Return what Postgres said, without the statement that SQLAlchemy puts around it."""
    said = str(error.orig if isinstance(error, DBAPIError) else error)
    if "lock timeout" in said:
        return f"{said}: a table or another migration is in use; nothing was left half done, run it again"
    return said


def _upgrade_to_head(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
