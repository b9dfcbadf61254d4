"""The schema: migrations from empty and under fire, what Postgres is told to do by itself, and who may do what."""
