"""Everything that a run needs, started in order and ended whatever happens: each by the process it was started as."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.chaos.replicas import Replica
from tests.chaos.servers import Server, own_postgres, own_redis
from tests.chaos.tenants import Tenants, make_tenants
from tests.support.engine import EngineProcess
from tests.support.proxy import Proxy
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.chaos.plan import Form

TOKENS_PER_S = 50
"""The pace of each stream of an engine."""
RECORDS_KEPT = 65_536
MODEL = {"pool": "gpu", "context": 262_144, "price": {"input": "1", "cached_input": "0.1", "output": "4"}}
PATIENCE: Mapping[str, str | float] = {
    # What takes minutes in production is made short enough to be seen to the end here.
    "reaper_patience_s": 15,
    "total_timeout_s": 60,
}


@dataclass(frozen=True)
class World:
    """What runs. Replicas reach Postgres, Redis and the engines through proxies."""

    folder: Path
    postgres: Server
    redis: Server
    engines: list[EngineProcess]
    engine_proxies: list[Proxy]
    replicas: list[Replica]
    tenants: Tenants


@contextmanager
def _coverage_not_measured() -> Iterator[None]:
    """Start processes as they are in production: measuring coverage makes them slow, and their memory grow."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            environment.delenv(name)
        yield


@contextmanager
def running_world(folder: Path, form: Form) -> Iterator[World]:
    """Start a world below `folder`, and end it."""
    with ExitStack() as stack:
        stack.enter_context(_coverage_not_measured())
        postgres, redis = own_postgres(stack), own_redis(stack)
        engines = [
            stack.enter_context(
                EngineProcess("sim", ttft_ms=30, tokens_per_second=TOKENS_PER_S, records_kept=RECORDS_KEPT)
            )
            for _ in range(form.engines)
        ]
        engine_proxies = [stack.enter_context(Proxy(engine.url)) for engine in engines]
        tenants = run_blocking(make_tenants(postgres.address, form))
        replicas = []
        for number in range(form.replicas):
            (home := folder / f"replica-{number}").mkdir(parents=True)
            replica = Replica(
                number,
                home,
                engines=[proxy.address for proxy in engine_proxies],
                models={"sim": MODEL},
                postgres=stack.enter_context(Proxy(postgres.address)),
                redis=stack.enter_context(Proxy(redis.address)),
                settings={**PATIENCE, "spool_dir": str(home / "spool")},
            )
            stack.callback(replica.end)
            replicas.append(replica)
        for replica in replicas:
            replica.start()
        yield World(folder, postgres, redis, engines, engine_proxies, replicas, tenants)
