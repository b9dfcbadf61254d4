"""Which revision of the schema this release needs, and which one a database is at.

Read from the names of the migrations: replicas must not load all of alembic and SQLAlchemy at every start to look.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from gateway.errors import StorageUnavailable

if TYPE_CHECKING:
    from gateway.storage.postgres import Pool


def script_location() -> Path:
    """Return the folder of the migrations: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent.parent
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parent / "alembic"


def revisions() -> list[str]:
    """Return the revisions that this release carries, oldest first: each begins the name of its file."""
    return sorted(path.name.partition("_")[0] for path in script_location().glob("versions/[0-9]*_*.py"))


def head_revision() -> str:
    """Return the newest revision that this release carries."""
    return revisions()[-1]


def is_older(revision: str) -> bool:
    """Return whether `revision` comes before this release's newest; one that it does not know is a later release's."""
    return revision in revisions()[:-1]


async def recorded_revision(pool: Pool) -> str | None:
    """Return the revision that the database is at, None when it was never migrated.

    Raises:
        StorageUnavailable: Postgres does not answer, or refuses.
    """
    try:
        revision: str | None = await pool.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StorageUnavailable(f"cannot read the schema's revision: {error}") from error
    return revision
