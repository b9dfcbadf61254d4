"""`make soak`: steady load under which nothing may grow: memory, descriptors, tasks, keys in Redis."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import psutil
from rich.console import Console

from tests.chaos.clients import Client
from tests.chaos.evidence import fresh_folder
from tests.chaos.facts import redis_contents
from tests.chaos.plan import Form
from tests.chaos.world import World, running_world
from tests.support.guarantees import measured

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT_S = 100.0
WARM_SHARE = 0.4
"""How much of a run is warm-up: caches fill, and the allocator takes what it will keep."""
WARM_S_MAX = 300.0
SAMPLE_S = 0.5
REPLICAS = 2
CLIENTS = 18
LAG_S_MAX = 0.1
"""In the mean: far more than a busy machine makes of it."""


@dataclass(frozen=True)
class Sample:
    """One look at one replica. The lag is the mean since its start, in seconds."""

    at_s: float
    rss_bytes: int
    descriptors: int
    tasks: int
    lag_s: float


@dataclass(frozen=True)
class Growth:
    """What grew between the two halves of what came after warm-up, in the replica where it grew most."""

    memory_percent: float
    descriptors: float
    tasks: float
    lag_s: float

    def __str__(self) -> str:
        return (
            f"memory {self.memory_percent:+.2f} %, descriptors {self.descriptors:+g}, tasks {self.tasks:+g}, "
            f"event loop lag {self.lag_s * 1000:.1f} ms in the mean"
        )


def growth_of(samples: list[list[Sample]]) -> Growth:
    """Compare the first with the last third of each replica's samples, all taken after warm-up."""
    found = [_growth(each) for each in samples]
    return Growth(*(max(values) for values in zip(*(vars(one).values() for one in found), strict=True)))


def _growth(samples: list[Sample]) -> Growth:
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    before, after = (median(one.rss_bytes for one in part) for part in (first, last))
    return Growth(
        memory_percent=(after / before - 1) * 100,
        # Requests come and go, so the floor is what tells a leak.
        descriptors=min(one.descriptors for one in last) - min(one.descriptors for one in first),
        tasks=min(one.tasks for one in last) - min(one.tasks for one in first),
        lag_s=samples[-1].lag_s,
    )


def soak(seconds: float, seed: int, say: Callable[[str], None], name: str) -> Growth:
    """Load replicas for so long; return what grew. Raises AssertionError where a promise was not kept."""
    folder = fresh_folder(name)
    warm_s = min(seconds * WARM_SHARE, WARM_S_MAX)
    say(f"soak: --seed {seed}, {seconds:.0f} s of steady load after which {warm_s:.0f} s of warm-up; logs in {folder}")
    with running_world(folder, Form(replicas=REPLICAS, engines=2, clients=CLIENTS, kills=0)) as world:
        ending = threading.Event()
        clients = [Client(caller, world.replicas, seed, ending) for caller in world.tenants.callers]
        for client in clients:
            client.start()
        try:
            samples, keys = _watched(world, warm_s, seconds - warm_s)
        finally:
            ending.set()
            for client in clients:
                client.join()
        for client in clients:
            if client.failure is not None:
                raise client.failure
        codes = [replica.terminate() for replica in world.replicas]
    growth = growth_of(samples)
    requests = sum(len(client.attempts) for client in clients)
    say(f"soak: {growth}; {keys:+d} keys in Redis; {requests} requests")
    assert codes == [0] * REPLICAS
    conditions = f"{seconds / 60:.2g} min, {requests} requests, seed {seed}"
    measured("memory", growth.memory_percent, conditions)
    measured("descriptors", growth.descriptors, conditions)
    measured("tasks", growth.tasks, conditions)
    measured("redis-keys", max(keys, 0), conditions)
    assert growth.lag_s <= LAG_S_MAX
    return growth


def _watched(world: World, warm_s: float, seconds: float) -> tuple[list[list[Sample]], int]:
    """Return the samples of each replica after warm-up, and by how many keys Redis grew meanwhile."""
    clock = threading.Event()
    clock.wait(warm_s)
    began_s, keys = time.monotonic(), []
    samples: list[list[Sample]] = [[] for _ in world.replicas]
    while time.monotonic() < began_s + seconds:
        for replica, found in zip(world.replicas, samples, strict=True):
            found.append(_sample(psutil.Process(replica.pid), replica.metrics()))
        keys.append(len(redis_contents(world.redis.address)))
        clock.wait(SAMPLE_S)
    third = len(keys) // 3
    return samples, min(keys[-third:]) - min(keys[:third])


def _sample(process: psutil.Process, page: dict[str, float]) -> Sample:
    return Sample(
        time.monotonic(),
        process.memory_info().rss,
        process.num_fds(),
        int(page["penstock_event_loop_tasks"]),
        page["penstock_event_loop_lag_seconds_sum"] / max(page["penstock_event_loop_lag_seconds_count"], 1),
    )


def main() -> int:
    """Read the form from the command line and run it; 1 when something grew."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=SHORT_S / 60, help="of load, warm-up included")
    parser.add_argument("--seed", type=int, default=1, help="of the requests")
    options = parser.parse_args()
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        soak(options.minutes * 60, options.seed, console.print, f"soak-{options.seed}")
    except AssertionError as error:
        console.print(f"soak with --seed {options.seed}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
