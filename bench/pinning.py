"""Which core each process runs on: the gateway has one to itself, everything else shares the rest.

A process inherits the cores of whoever starts it, so a child is pinned by pinning this process while it is started:
then no thread of the child ever ran elsewhere.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Cores:
    """The gateway's core, and those of everything else."""

    gateway: frozenset[int]
    others: frozenset[int]


def split_cores(available: frozenset[int], gateway_core: int | None = None) -> Cores:
    """Give the gateway one core (the lowest by default) and the rest to everything else.

    Raises BenchError when there are fewer than two cores, or when the one asked for is not available.
    """
    if len(available) < 2:
        raise BenchError("the benchmarks need at least two cores: one for the gateway, one for everything else")
    core = min(available) if gateway_core is None else gateway_core
    if core not in available:
        raise BenchError(f"core {core} is not available to this process; these are: {sorted(available)}")
    return Cores(frozenset({core}), available - {core})


def available_cores() -> frozenset[int]:
    """Return the cores this process may run on."""
    return frozenset(os.sched_getaffinity(0))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
