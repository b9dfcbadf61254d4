"""Pools of engines as penstock.yaml has them and as this replica sees them now. Read here, changed in penstock.yaml.

Where engines are is for the platform's administrator alone; everybody else is told which models a pool serves and
whether it does. Addresses are told without what may be secret in them: user, password, query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from gateway.admin.names import quoted
from gateway.admin.scope import Role
from gateway.domain.config import EngineKind  # noqa: TC001 - read by pydantic
from gateway.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.admin.scope import Scope
    from gateway.domain.config import GatewayConfig
    from gateway.domain.engines import EngineState


@dataclass(frozen=True, slots=True)
class EngineShown:
    """One engine as this replica sees it.

    `up`: it answers probes; `ejected`: its recent failures keep it out; `busy`: it asked for a pause. All null where
    no gateway runs.
    """

    endpoint: str
    up: bool | None
    ejected: bool | None
    busy: bool | None
    in_flight: int | None


@dataclass(frozen=True, slots=True)
class PoolShown:
    """A pool. `available`: an engine is up and not ejected, null where no gateway runs.

    `concurrency` is how many requests each engine takes at once, null: as many as come. `engines` null: not told.
    """

    name: str
    engine_kind: EngineKind
    models: tuple[str, ...]
    available: bool | None
    concurrency: int | None
    engines: tuple[EngineShown, ...] | None


def list_pools(scope: Scope, config: GatewayConfig, states: Iterable[EngineState] | None) -> list[PoolShown]:
    """Return the pools in the order of penstock.yaml. `states` None: no gateway runs here."""
    seen = None if states is None else {(state.pool, state.endpoint): state for state in states}
    return [_shown(scope, config, name, seen) for name in config.pools]


def find_pool(scope: Scope, config: GatewayConfig, states: Iterable[EngineState] | None, name: str) -> PoolShown:
    """Return one pool. Raises NotFound."""
    for pool in list_pools(scope, config, states):
        if pool.name == name:
            return pool
    raise NotFound(f"no pool {quoted(name)}", param="pool")


def _shown(
    scope: Scope, config: GatewayConfig, name: str, states: Mapping[tuple[str, str], EngineState] | None
) -> PoolShown:
    pool = config.pools[name]
    engines = [(endpoint, None if states is None else states.get((name, endpoint))) for endpoint in pool.endpoints]
    platform = scope.role is Role.PLATFORM_ADMIN
    return PoolShown(
        name=name,
        engine_kind=pool.engine_kind,
        models=tuple(model.name for model in config.models.values() if name in model.pools),
        available=None if states is None else any(state and state.up and not state.ejected for _, state in engines),
        concurrency=pool.concurrency if platform else None,
        engines=tuple(_engine(endpoint, state) for endpoint, state in engines) if platform else None,
    )


def _engine(endpoint: str, state: EngineState | None) -> EngineShown:
    address = without_secrets(endpoint)
    if state is None:
        return EngineShown(address, None, None, None, None)
    return EngineShown(address, state.up, state.ejected, state.busy, state.in_flight)


def without_secrets(endpoint: str) -> str:
    """Return an address without user, password, query and fragment; what is none stays as it is."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
