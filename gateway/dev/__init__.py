"""What `penstock dev` adds to the gateway: embedded PostgreSQL and Redis, simulated engines, and their orchestration.

Nothing in here runs in production. Every process that is started from here ends with the one that started it
(see `gateway.dev.guard`), and what it keeps lies under one data directory.
"""
