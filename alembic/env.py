"""Alembic's entry: runs migrations on a connection that `gateway.storage.migrate` opened, locked and hands over.

Nothing here reads the environment or opens a connection: `penstock migrate` is the one way in.
"""

from alembic import context

from gateway.storage.migrate import include_object
from gateway.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_object=include_object,
    compare_type=True,
    compare_server_default=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
