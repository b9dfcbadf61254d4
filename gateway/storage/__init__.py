"""Postgres and Redis: table definitions, connections, migrations. No business rule lives here."""
