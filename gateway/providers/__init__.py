"""Upstream dialects, credentials and connections: everything that differs from one engine to another."""
