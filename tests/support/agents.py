"""A gateway as coding agents use it, with engines that can be made to fail each in its own way."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.engine import EngineProcess
from tests.support.opencode import OpenCodeRun, configuration, run_opencode
from tests.support.scripted import ScriptedEngine
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.opencode import Event
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

UPSTREAM = "Qwen/Qwen3-Coder"
CONTEXT_MAX = 4096
POOLS = ("gpu", "pair", "short", "odd")
UNTITLED = ("--title", "a title")
"""Without a request for a title, which OpenCode makes beside the first step and does not always wait for."""


@dataclass(frozen=True)
class Agents:
    """One replica with a model before each of four pools, by the pool's name.

    `gpu` has one engine; `pair` two that may be killed; `short` one whose context is smaller than an agent's
    instructions; `odd` one that says what it is told.
    """

    stack: Stack
    pair: list[EngineProcess]
    odd: ScriptedEngine

    @property
    def engine(self) -> EngineProcess:
        """The engine of `gpu`."""
        return self.stack.engine

    def work(
        self,
        tenant: Tenant,
        folder: Path,
        message: str,
        *arguments: str,
        model: str = "gpu",
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> OpenCodeRun:
        """Let OpenCode do something with a tenant's key; see `run_opencode`."""
        config = configuration(self.stack.gateway.base_url, tenant.key, POOLS)
        options = ("-m", f"penstock/{model}", *arguments)
        run = run_opencode(folder, message, *options, config=config, on_event=on_event)
        assert not run.timed_out, run
        return run


@contextmanager
def running_agents(databases: Databases, servers: ServerAddresses, folder: Path) -> Iterator[Agents]:
    """Yield the replica and its engines, running."""
    with ExitStack() as stack:
        odd = stack.enter_context(ScriptedEngine())
        short = stack.enter_context(EngineProcess(UPSTREAM, max_model_len=CONTEXT_MAX))
        pair = [stack.enter_context(EngineProcess(UPSTREAM)) for _ in range(2)]
        urls = {"pair": [each.url for each in pair], "short": [short.url], "odd": [odd.url]}
        model: dict[str, Any] = {
            "upstream": UPSTREAM,
            "context": 262_144,
            "output": 65_536,
            "price": {"input": "1", "output": "4"},
        }
        config: dict[str, Any] = {
            "models": {name: {"pool": name, **model} for name in POOLS},
            "pools": {name: {"engine": "vllm", "endpoints": each} for name, each in urls.items()},
        }
        engines = [EngineProcess(UPSTREAM)]
        running = stack.enter_context(running_stack(databases, servers, folder, engines=engines, config=config))
        yield Agents(running, pair, odd)
