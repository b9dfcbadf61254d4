"""What a replica does when Postgres or Redis is away."""
