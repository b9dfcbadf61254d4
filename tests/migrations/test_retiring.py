"""A database that was migrated between two releases has functions that only a later migration makes."""

from __future__ import annotations

from gateway.storage.migrate import upgrade
from tests.migrations.test_migrating import upgrade_to
from tests.support.postgres import ask

OF_BEFORE = """
CREATE FUNCTION {signature} LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RAISE EXCEPTION 'of before'; END $$
"""
SIGNATURES = (
    "penstock_retire_partition(kind text, of_day date) RETURNS text",
    "penstock_retire_hours(before_day date, rows_max integer) RETURNS bigint",
)
FUNCTIONS = """
SELECT array_agg(proname::text ORDER BY proname) FROM pg_proc
 WHERE proname LIKE 'penstock_retire_%' AND prosrc NOT LIKE '%of before%' AND proconfig::text LIKE '%search_path%'
   AND NOT EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)
"""


async def test_functions_that_are_there_already_are_replaced(empty_postgres_dsn: str) -> None:
    await upgrade_to(empty_postgres_dsn, "0008")
    for signature in SIGNATURES:
        await ask(empty_postgres_dsn, OF_BEFORE.format(signature=signature))
    await upgrade(empty_postgres_dsn)
    assert await ask(empty_postgres_dsn, FUNCTIONS) == ["penstock_retire_hours", "penstock_retire_partition"]
