"""Chooses engines for calls: the least loaded healthy one of the model's pool, then another one, then the fallbacks.

What the relay sees is an iterator of attempts. How the next engine is chosen can change behind it.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from gateway.domain.attempt import AttemptOutcome
from gateway.domain.engines import EngineState
from gateway.errors import NoEngine
from gateway.providers.dialect import serves
from gateway.route.engine import Engine
from gateway.route.health import watch

if TYPE_CHECKING:
    from gateway.domain.attempt import Attempt
    from gateway.domain.call import Call
    from gateway.domain.config import GatewayConfig, PoolConfig
    from gateway.observe.metrics import Metrics

ATTEMPTS_MAX = 2
RETRY_SHARE = 0.2
RETRY_RESERVE = 10.0


class RetryBudget:
    """Retries may be a fifth of all calls, so that a failing pool is not hit twice as hard; a few are always saved."""

    def __init__(self) -> None:
        self._saved = RETRY_RESERVE

    def earn(self) -> None:
        """A call was made."""
        self._saved = min(self._saved + RETRY_SHARE, RETRY_RESERVE)

    def spend(self) -> bool:
        """Return whether one retry may be made, and take it."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Pool:
    """The engines of one pool, in the order of penstock.yaml."""

    def __init__(self, config: PoolConfig, engines: list[Engine]) -> None:
        self.config = config
        self.engines = engines
        self.retries = RetryBudget()
        self._turn = itertools.count()

    def healthy(self, tried: set[str]) -> list[Engine]:
        """Return the engines that are up, not ejected and were not tried yet."""
        return [engine for engine in self.engines if engine.up and not engine.ejected and engine.endpoint not in tried]

    def untried(self, tried: set[str]) -> list[Engine]:
        """Return the engines that were not tried yet, in whatever state."""
        return [engine for engine in self.engines if engine.endpoint not in tried]

    def choose(self, engines: list[Engine]) -> Engine | None:
        """Return the least loaded of `engines`, None when none has room. Those that asked for a pause come last."""
        candidates = [engine for engine in engines if not engine.full]
        candidates = [engine for engine in candidates if not engine.busy] or candidates
        if not candidates:
            return None
        if len(candidates) == 1:
            return candidates[0]
        # Equals take turns: always beginning with the first would load it more.
        start = next(self._turn) % len(candidates)
        return min(candidates[start:] + candidates[:start], key=lambda engine: engine.in_flight)

    def may_eject(self) -> bool:
        """Whether one more engine may be kept out: never more than half of them."""
        return 2 * (sum(engine.ejected for engine in self.engines) + 1) <= len(self.engines)


class EngineAttempt:
    """See `gateway.domain.attempt.Attempt`."""

    __slots__ = (
        "_engine", "_pool", "connection", "engine", "engine_kind", "headers", "outcome", "pool", "timeouts",
        "upstream_model",
    )  # fmt: skip

    def __init__(self, pool: Pool, engine: Engine, upstream_model: str) -> None:
        self._pool = pool
        self._engine = engine
        self.outcome: AttemptOutcome | None = None
        """How it went, None before `finish`."""
        self.pool = pool.config.name
        self.engine = engine.endpoint
        self.engine_kind = pool.config.engine_kind
        self.upstream_model = upstream_model
        self.connection = engine.connection
        self.headers = engine.headers
        self.timeouts = pool.config.timeouts
        engine.begin()

    def finish(self, outcome: AttemptOutcome, *, retry_after_s: float | None = None) -> None:
        """Free the slot and tell how it went."""
        if self.outcome is None:
            self.outcome = outcome
            self._engine.end(outcome, may_eject=self._pool.may_eject(), retry_after_s=retry_after_s)


class _Attempts:
    """Engines for one call, chosen when asked for."""

    __slots__ = ("_budget", "_call", "_last", "_left", "_pools", "_tried")

    def __init__(self, call: Call, pools: list[Pool]) -> None:
        self._call = call
        self._pools = pools
        self._left = ATTEMPTS_MAX
        self._last: EngineAttempt | None = None
        self._tried: set[str] = set()
        self._budget = pools[0].retries if pools else RetryBudget()
        self._budget.earn()

    def __aiter__(self) -> _Attempts:
        return self

    async def __anext__(self) -> Attempt:
        if self._left == 0:
            raise StopAsyncIteration
        last = self._last
        chosen = self._choose()
        if chosen is None and last is not None and last.outcome is AttemptOutcome.STALE:
            self._tried.discard(last.engine)
            chosen = self._choose()
        if chosen is None and last is None:
            raise NoEngine("every engine for this model is down or full", retry_after_s=1.0)
        if chosen is None or (last is not None and not self._budget.spend()):
            raise StopAsyncIteration
        pool, engine = chosen
        self._left -= 1
        self._tried.add(engine.endpoint)
        self._last = EngineAttempt(pool, engine, self._call.model.upstream)
        return self._last

    def _choose(self) -> tuple[Pool, Engine] | None:
        """Choose from the first pool that has a healthy engine with room.

        When no pool has a healthy engine, the others are tried: better a request that may fail than one that surely
        does.
        """
        tried = self._tried
        any_healthy = False
        for pool in self._pools:
            healthy = pool.healthy(tried)
            any_healthy = any_healthy or bool(healthy)
            if (engine := pool.choose(healthy)) is not None:
                return pool, engine
        if not any_healthy:
            for pool in self._pools:
                if (engine := pool.choose(pool.untried(tried))) is not None:
                    return pool, engine
        return None


class Router:
    """All pools of penstock.yaml. A new configuration keeps the engines that it still names."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pools: dict[str, Pool] = {}
        self._watches: dict[Engine, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def configure(self, config: GatewayConfig) -> None:
        """Take on a configuration; needs a running event loop. Requests under way finish where they are."""
        kept = {(pool.config.name, engine.endpoint): engine for pool in self._pools.values() for engine in pool.engines}
        pools: dict[str, Pool] = {}
        for pool in config.pools.values():
            engines: list[Engine] = []
            for endpoint in pool.endpoints:
                known = kept.get((pool.name, endpoint))
                same = known is not None and known.pool == pool
                engines.append(known if known is not None and same else Engine(pool, endpoint, self._metrics))
            pools[pool.name] = Pool(pool, engines)
        self._pools = pools
        current = {engine for pool in pools.values() for engine in pool.engines}
        for engine in current - self._watches.keys():
            self._watches[engine] = asyncio.get_running_loop().create_task(watch(engine))
        for engine in self._watches.keys() - current:
            self._watches.pop(engine).cancel()
            closing = asyncio.get_running_loop().create_task(engine.connection.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        for name, endpoint in kept.keys() - {(engine.pool.name, engine.endpoint) for engine in current}:
            self._metrics.forget_engine(name, endpoint)

    def attempts(self, call: Call) -> _Attempts:
        """Return the engines to try for a call, in turn: of pools that have its endpoint, and are still there."""
        known, endpoint = self._pools, call.endpoint
        pools = [known[name] for name in call.model.pools if name in known]
        return _Attempts(call, [pool for pool in pools if serves(pool.config.engine_kind, endpoint)])

    def states(self) -> list[EngineState]:
        """Return how every engine stands now."""
        return [
            EngineState(pool.config.name, each.endpoint, each.up, each.ejected, each.busy, each.in_flight)
            for pool in self._pools.values()
            for each in pool.engines
        ]

    async def close(self) -> None:
        """Stop probing and close idle connections."""
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*self._watches.values(), *self._closing, return_exceptions=True)
        for pool in self._pools.values():
            for engine in pool.engines:
                await engine.connection.close()
