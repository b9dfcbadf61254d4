"""The seed of everything random here: told in every failure, and taken from the environment to repeat one."""

from __future__ import annotations

import os
from random import Random

SEED = 20_251


def seed() -> int:
    """Return PENSTOCK_TEST_SEED, or the seed of every run."""
    return int(os.environ.get("PENSTOCK_TEST_SEED", SEED))


def random_of(number: int) -> Random:
    """Return what makes the case of this number, the same in every run of a seed."""
    return Random(f"{seed()}:{number}")  # noqa: S311 - cases are to be repeated, not to be unguessable
