"""`penstock engine`: the simulated engine as a command of its own."""

from gateway.dev.engine.cli import engine

__all__ = ["engine"]
