"""The role of Postgres that the documentation makes for serving, under a name of its own."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from tests.support.postgres import connected
from tests.support.servers import run_blocking
from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTED = "penstock_serve"


@contextmanager
def serving_role(dsn: str) -> Iterator[str]:
    """Make the role, yield the address that it connects with, and remove it."""
    role, password = f"{DOCUMENTED}_{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    page = (REPOSITORY / "docs" / "database.md").read_text(encoding="utf-8")
    found = re.search(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    run_blocking(execute(dsn, found[1].replace(DOCUMENTED, role), f"ALTER ROLE {role} PASSWORD '{password}'"))
    parts = urlsplit(dsn)
    try:
        yield urlunsplit(parts._replace(netloc=f"{role}:{password}@{parts.netloc.rpartition('@')[2]}"))
    finally:
        run_blocking(execute(dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}"))


async def execute(dsn: str, *statements: str) -> None:
    """Run statements as the owner."""
    async with connected(dsn) as connection:
        for statement in statements:
            await connection.execute(statement)
