"""`penstock migrate`: the database at the newest revision. Several at once take turns."""

import asyncio

from gateway.admin.database import transaction_on
from gateway.cli.connect import direct_address
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import answer
from gateway.storage.migrate import upgrade


def migrate(*, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Bring the database to this release. Harmless when it is there already; one at a time over all replicas.

    Uses PENSTOCK_POSTGRES_DIRECT_DSN where a pooler stands before Postgres: locks do not survive one.
    """
    revision = asyncio.run(_migrated(direct_address(postgres_dsn)))
    answer({"revision": revision}, f"the database is at revision {revision}", as_json=as_json)


async def _migrated(address: str) -> str:
    """Migrate and return the revision. A database that is away is told sooner than a migration may wait for one."""
    async with transaction_on(address) as db:
        await db.execute("SELECT 1")
    return await upgrade(address)
