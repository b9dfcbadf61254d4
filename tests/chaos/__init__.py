"""Everything fails at once, from a seed: replicas, Redis, Postgres, the network, under load; the books must agree."""
