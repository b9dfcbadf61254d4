"""Replicas, engines, a fresh database and an empty Redis together, for a module of tests that share them.

What tests share must not carry over from one to the next: each makes a tenant of its own, and tells engines how to
behave in the body of its request (`"sim": {...}`). When the stack ends, its replicas must have ended cleanly and their
logs must hold no fault.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.servers import empty_redis
from tests.support.tenants import Tenant, make_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases


@dataclass(frozen=True)
class Stack:
    """What runs. `gateway` and `engine` are the first ones."""

    dsn: str
    redis_url: str
    gateways: list[GatewayProcess]
    engines: list[EngineProcess]

    @property
    def gateway(self) -> GatewayProcess:
        """The first replica."""
        return self.gateways[0]

    @property
    def engine(self) -> EngineProcess:
        """The first engine."""
        return self.engines[0]

    def tenant(self, **limits: Any) -> Tenant:
        """Make a tenant; see `make_tenant`."""
        return make_tenant(self.dsn, **limits)

    def client(self, **limits: Any) -> Http:
        """Return a client of the first replica with a new tenant's key."""
        return self.gateway.http(self.tenant(**limits).key)


@contextmanager
def running_stack(
    databases: Databases,
    servers: ServerAddresses,
    folder: Path,
    *,
    replicas: int = 1,
    engines: Sequence[EngineProcess] | None = None,
    extra_engines: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    **settings: str | float,
) -> Iterator[Stack]:
    """Yield a running stack.

    Args:
        databases: where its database is made.
        servers: whose Redis is emptied for it.
        folder: where penstock.yaml and the logs go, one folder a replica.
        replicas: how many.
        engines: to be started and stopped with it; default: one that serves `sim`.
        extra_engines: URLs of further engines in the pool.
        config: further arguments of `write_config`.
        settings: of the replicas, as `GatewayProcess` takes them.
    """
    with ExitStack() as stack:
        running = [stack.enter_context(engine) for engine in ([EngineProcess("sim")] if engines is None else engines)]
        dsn = stack.enter_context(databases.migrated())
        empty_redis(servers.redis_url)
        gateways = []
        for number in range(replicas):
            (home := folder / f"replica-{number}").mkdir()
            urls = [*(engine.url for engine in running), *extra_engines]
            path = write_config(home / "penstock.yaml", urls, **(config or {}))
            gateways.append(stack.enter_context(GatewayProcess(path, dsn, servers.redis_url, **settings)))
        yield Stack(dsn, servers.redis_url, gateways, running)
        for gateway in gateways:
            code = gateway.terminate()
            assert code == 0, f"exit code {code}:\n{gateway.log.read_text()}"
            assert_no_faults(gateway)


def assert_no_faults(gateway: GatewayProcess) -> None:
    """Assert that a replica's log holds no traceback, no error and no library's complaint."""
    text = gateway.log.read_text()
    assert "Traceback" not in text, text
    faults = [line for line in gateway.log_lines() if line["level"] in {"error", "critical"} or "exception" in line]
    assert faults == []
