"""Lets the faults of a plan happen, each in its time and to its end, and notes what really happened when."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import redis

from tests.chaos.happened import Happened
from tests.chaos.plan import DELAY_S, Kind
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.chaos.plan import Fault
    from tests.chaos.world import World
    from tests.support.proxy import Proxy

COMMAND_S_MAX = 10.0
FAULTS_AT_ONCE_MAX = 64
SERVING_MIN = 2
"""Replicas that serve when one of them is killed: where starting takes long, kills come later, not all at once."""
LATE_S_MAX = 180.0
"""How long after the end of the load the last kill may come."""


class Conductor:
    """Makes faults. `ending` ends those that last."""

    def __init__(self, world: World, ending: threading.Event, say: Callable[[str], None]) -> None:
        self.happened = Happened()
        self._world = world
        self._ending = ending
        self._say = say
        self._turn = threading.Lock()
        self._last_s = 0.0
        self._makers: dict[Kind, Callable[[Fault], None]] = {
            Kind.KILL: self._kill,
            Kind.REDIS_FLUSH: self._flush,
            Kind.REDIS_RESTART: self._restart_redis,
            Kind.REDIS_PAUSE: lambda fault: world.redis.pause(ending, fault.lasts_s),
            Kind.REDIS_CUT: lambda fault: world.replicas[fault.target].redis.cut(),
            Kind.REDIS_SLOW: lambda fault: self._slow(world.replicas[fault.target].redis, fault),
            Kind.REDIS_MUTE: lambda fault: self._mute(world.replicas[fault.target].redis, fault),
            Kind.POSTGRES_STOP: self._stop_postgres,
            Kind.POSTGRES_PAUSE: lambda fault: world.postgres.pause(ending, fault.lasts_s),
            Kind.POSTGRES_CUT: lambda fault: world.replicas[fault.target].postgres.cut(),
            Kind.ENGINE_CUT: lambda fault: world.engine_proxies[fault.target].cut(),
            Kind.ENGINE_SLOW: lambda fault: self._slow(world.engine_proxies[fault.target], fault),
        }

    def conduct(self, faults: Iterable[Fault], load_s: float) -> None:
        """Make all faults, then wait until the load has lasted `load_s` and every fault has ended.

        Raises what a fault raised: a server that does not come back is a failure of the run.
        """
        began_s = time.monotonic()
        self._last_s = began_s + load_s + LATE_S_MAX
        with ThreadPoolExecutor(FAULTS_AT_ONCE_MAX, thread_name_prefix="fault") as pool:
            made: list[Future[None]] = []
            for fault in _due(faults, began_s, self._ending):
                self._say(str(fault))
                made.append(pool.submit(self._make, fault))
            self._ending.wait(max(began_s + load_s - time.monotonic(), 0.0))
        for one in made:
            one.result()

    def _make(self, fault: Fault) -> None:
        from_s = time.time()
        self._makers[fault.kind](fault)
        spans = {
            "REDIS": self.happened.redis_troubles,
            "POSTGRES": self.happened.postgres_troubles,
            "ENGINE": self.happened.engine_troubles,
        }
        if (server := fault.kind.name.partition("_")[0]) in spans:
            spans[server].append((from_s, time.time()))

    def _kill(self, fault: Fault) -> None:
        replicas = self._world.replicas
        with self._turn:
            wait_for(
                lambda: replicas[fault.target].serving and sum(one.serving for one in replicas) >= SERVING_MIN,
                "enough replicas serve for one to be killed",
                max(self._last_s - time.monotonic(), 0.0),
            )
            replicas[fault.target].kill()
        replicas[fault.target].start_again()

    def _flush(self, _fault: Fault) -> None:
        with redis.Redis.from_url(self._world.redis.address, socket_timeout=COMMAND_S_MAX) as client:
            from_s = time.time()
            client.flushall()
            self.happened.losses.append((from_s, time.time()))

    def _restart_redis(self, fault: Fault) -> None:
        from_s = time.time()
        self._world.redis.kill()
        self._ending.wait(fault.lasts_s)
        self._world.redis.start()
        self.happened.losses.append((from_s, time.time()))

    def _stop_postgres(self, fault: Fault) -> None:
        self._world.postgres.stop()
        self._ending.wait(fault.lasts_s)
        self._world.postgres.start()

    def _slow(self, proxy: Proxy, fault: Fault) -> None:
        proxy.delay(DELAY_S)
        self._ending.wait(fault.lasts_s)
        proxy.delay(0)

    def _mute(self, proxy: Proxy, fault: Fault) -> None:
        proxy.freeze()
        self._ending.wait(fault.lasts_s)
        proxy.thaw()


def _due(faults: Iterable[Fault], began_s: float, ending: threading.Event) -> Iterator[Fault]:
    """Yield each fault when its time has come; stop when all is to end."""
    for fault in faults:
        if ending.wait(max(began_s + fault.at_s - time.monotonic(), 0.0)):
            return
        yield fault
