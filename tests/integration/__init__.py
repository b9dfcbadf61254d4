"""Parts of the gateway against a real PostgreSQL and a real Redis."""
