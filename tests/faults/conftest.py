"""Fixtures of the fault tests: a replica on servers of its own, which a test may stop and freeze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.gateway import AS_SHIPPED, GatewayProcess, write_config
from tests.support.tenants import Tenant, make_tenant, make_tenant_heard_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.books import Books
    from tests.support.engine import EngineProcess


@pytest.fixture
def lone_gateway(
    engine: EngineProcess, own_postgres: RunningServer, redis_url: str, tmp_path: Path
) -> Iterator[GatewayProcess]:
    """A replica whose Postgres may be stopped and frozen."""
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, own_postgres.address, redis_url, **AS_SHIPPED) as running:
        yield running


@pytest.fixture
def stranger(own_postgres: RunningServer) -> Tenant:
    """Somebody in `own_postgres` whom no replica has seen."""
    return make_tenant(own_postgres.address)


@pytest.fixture
def lone_tenant(lone_gateway: GatewayProcess, own_postgres: RunningServer) -> Tenant:
    """A tenant without limits in `own_postgres`, that `lone_gateway` has heard of."""
    return make_tenant_heard_of(lone_gateway, own_postgres.address)


@pytest.fixture
def books(accounts: Books) -> Books:
    """The books of the tenant that asks in this module, as they stand before the test."""
    accounts.begin()
    return accounts
