"""Organization acme, for tests of the command line that are about something else."""

from __future__ import annotations

import asyncio

from gateway.admin.database import transaction_on
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team
from gateway.admin.users import create_user


def make_acme(dsn: str) -> None:
    """Make organization acme with team core and its member bob."""

    async def make() -> None:
        async with transaction_on(dsn) as db:
            await create_organization(db, PLATFORM, "acme")
            await create_team(db, PLATFORM, "core", organization="acme")
            await create_user(db, PLATFORM, "bob", organization="acme", teams=["core"])

    asyncio.run(make())
