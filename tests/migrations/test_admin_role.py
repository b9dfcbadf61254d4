"""The documentation's role of replicas over which tenants are administered: enough for that, and the ledger stays."""

from __future__ import annotations

import re

import asyncpg
import pytest

from tests.migrations.test_roles import REFUSED
from tests.support.admin_api import serving
from tests.support.postgres import connected
from tests.support.roles import DOCUMENTED, execute, serving_role
from tests.support.servers import run_blocking
from tests.support.source import REPOSITORY

NEVER = ("record", "opening", "correction", "sum", "table", "partition", "function")
"""What even this role cannot change: the ledger, and the schema."""


def administering(dsn: str, role: str) -> None:
    """Give a serving role what the documentation adds."""
    page = (REPOSITORY / "docs" / "database.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    run_blocking(execute(dsn, blocks[1].replace(DOCUMENTED, role)))


async def test_tenants_are_administered_and_the_ledger_stays(postgres_dsn: str) -> None:
    with serving_role(postgres_dsn) as dsn:
        administering(postgres_dsn, dsn.partition("://")[2].partition(":")[0])
        async with serving(dsn) as api:
            api.client.headers["idempotency-key"] = "once"
            await api.post("organizations", name="acme")
            del api.client.headers["idempotency-key"]
            await api.post("teams", name="core", organization="acme")
            await api.post("users", name="bob", organization="acme", teams=["core"])
            key = await api.post("keys", team="core", user="bob", requests_per_minute=5)
            await api.post("limits", level="team", subject="core", budget_day_usd="5")
            await api.post("prices", model="qwen", input="1", output="2")
            await api.post("webhooks", organization="acme", url="https://hooks.example/")
            assert len((await api.get("audit"))["data"]) > 5
            for path in (
                f"keys/{key['id']}",
                "teams/core/members/bob",
                "users/bob",
                "teams/core",
                "organizations/acme",
            ):
                answer = await api.client.delete(f"/admin/v1/{path}")
                assert answer.status_code == 200, answer.text
        async with connected(dsn) as connection:
            refused = [REFUSED[name] for name in REFUSED if name.endswith(NEVER)]
            assert len(refused) > len(NEVER)
            for statement in (*refused, "DELETE FROM audit_event", "UPDATE audit_event SET action = 'create'"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
