"""The seed of everything random here: told in every failure, and taken from the environment to repeat one."""

from __future__ import annotations

import os

SEED = 20_251


def seed() -> int:
    """Return PENSTOCK_TEST_SEED, or the seed of every run."""
    return int(os.environ.get("PENSTOCK_TEST_SEED", SEED))
