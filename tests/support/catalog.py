"""A schema as Postgres itself describes it, so that two databases can be compared word by word.

Partitions are left out: they follow from their parents, and which days exist depends on the day.
"""

from __future__ import annotations

from tests.support.postgres import connected

_RELATIONS = """
WITH relation AS (
    SELECT oid, relname, relkind, relpartbound FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
       AND relname <> 'alembic_version'
)
"""

QUERIES = {
    "tables": """
        SELECT relname AS name, relkind::text AS kind, pg_get_partkeydef(oid) AS partitioned FROM relation
    """,
    "columns": """
        SELECT relname || '.' || attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS required,
               attidentity::text AS identity, attgenerated::text AS generated, coll.collname AS collation,
               pg_get_expr(adbin, adrelid) AS default, col_description(attrelid, attnum) AS comment
          FROM relation
          JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
          LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
          LEFT JOIN pg_collation AS coll ON coll.oid = attcollation
    """,
    "constraints": """
        SELECT relname || '.' || conname AS name, contype::text AS kind,
               pg_get_constraintdef(pg_constraint.oid) AS text, convalidated AS validated
          FROM relation JOIN pg_constraint ON conrelid = relation.oid
    """,
    "indexes": """
        SELECT relname || '.' || indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS text,
               indisvalid AS valid
          FROM relation JOIN pg_index ON indrelid = relation.oid
    """,
}


async def described(dsn: str) -> dict[str, dict[str, dict[str, object]]]:
    """Return what there is in `public`: by kind of thing, by name, what Postgres says of it."""
    async with connected(dsn) as connection:
        return {
            kind: {row["name"]: dict(row) for row in await connection.fetch(_RELATIONS + query)}
            for kind, query in QUERIES.items()
        }
