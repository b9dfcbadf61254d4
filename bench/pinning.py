"""Which core each process runs on: the gateway has one to itself, everything else shares the rest.

A process inherits the cores of whoever starts it, so a child is pinned by pinning this process while it is started:
then no thread of the child ever ran elsewhere.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORES_WITHOUT_CAVEAT = 3
SIBLINGS = "/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"


@dataclass(frozen=True, slots=True)
class Cores:
    """The gateway's core, those of everything else, and the hardware threads of the gateway's core left unused.

    `shared`: the gateway shares its physical core with the others, since there is no further one.
    """

    gateway: frozenset[int]
    others: frozenset[int]
    unused: frozenset[int] = frozenset()
    shared: bool = False

    def caveats(self) -> list[str]:
        """Return what these cores make of the figures, in sentences."""
        found = []
        if self.shared:
            found.append(
                "the gateway's core and the other are two hardware threads of one physical core: each slows the other"
            )
        if len(self.others) < CORES_WITHOUT_CAVEAT:
            found.append(
                f"engine, load client, PostgreSQL and Redis share {len(self.others)} core(s): latencies of saturating "
                "scenarios include their waiting for each other"
            )
        return found


def thread_siblings(core: int) -> frozenset[int]:
    """Return the hardware threads that share the physical core of `core`, without itself; none when it is not known."""
    try:
        text = Path(SIBLINGS.format(core=core)).read_text("utf-8")
        return parse_cores(text) - {core}
    except (OSError, ValueError):
        return frozenset()


def parse_cores(text: str) -> frozenset[int]:
    """Return the cores of a list as Linux writes it, such as `0-1,4`. Raises ValueError when it is none."""
    ranges = [part.partition("-") for part in text.strip().split(",")]
    return frozenset(core for first, _, last in ranges for core in range(int(first), int(last or first) + 1))


def split_cores(
    available: frozenset[int],
    gateway_core: int | None = None,
    siblings_of: Callable[[int], frozenset[int]] = thread_siblings,
) -> Cores:
    """Give the gateway one core (the lowest by default) and the rest to everything else.

    Further hardware threads of its physical core are left unused where there are other cores. Raises BenchError when
    there are fewer than two cores, or when the one asked for is not available.
    """
    if len(available) < 2:
        raise BenchError(
            f"the benchmarks need at least two cores, one for the gateway and one for everything else; "
            f"available to this process: {len(available)}"
        )
    core = min(available) if gateway_core is None else gateway_core
    if core not in available:
        raise BenchError(f"core {core} is not available to this process; these are: {sorted(available)}")
    others, siblings = available - {core}, siblings_of(core) & available
    if others == siblings:
        return Cores(frozenset({core}), others, shared=True)
    return Cores(frozenset({core}), others - siblings, unused=siblings)


def available_cores() -> frozenset[int]:
    """Return the cores this process may run on. Raises BenchError on a system that does not let it choose."""
    if sys.platform != "linux":
        raise BenchError("the benchmarks need Linux: epoll, and a core that can be given to one process")
    return frozenset(os.sched_getaffinity(0))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on these cores. Raises BenchError when that is not allowed."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise BenchError(
            f"this process may not choose its cores ({error.strerror}), so the gateway cannot have one of its own: "
            "run it where sched_setaffinity is allowed"
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
