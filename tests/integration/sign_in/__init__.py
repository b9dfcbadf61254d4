"""Signing in, on a real Postgres and with a real provider."""
