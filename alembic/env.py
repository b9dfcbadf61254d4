"""Alembic's entry: runs migrations on a connection that `gateway.storage.migrate` opened, locked and hands over.

Nothing here reads the environment or opens a connection: `penstock migrate` is the one way in.
"""

from alembic import context

from gateway.storage.tables import metadata


def include_object(thing: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:  # noqa: FBT001 - alembic calls it so
    """Leave partitions out of comparisons: they are made while the gateway runs."""
    return not (kind == "table" and reflected and compare_to is None and (name or "").startswith("usage_"))


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
