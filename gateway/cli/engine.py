"""`penstock engine`: the simulated engine, and `penstock engine replay`: traffic for it, or for any other server."""

from gateway.dev.engine.cli import engine
from gateway.dev.replay.command import replay

__all__ = ["engine", "replay"]
