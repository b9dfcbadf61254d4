"""Fixtures of the fault tests: a replica on servers of its own, which a test may stop and freeze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.gateway import GatewayProcess, write_config
from tests.support.tenants import Tenant, make_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.engine import EngineProcess


@pytest.fixture
def lone_gateway(
    engine: EngineProcess, own_postgres: RunningServer, redis_url: str, tmp_path: Path
) -> Iterator[GatewayProcess]:
    """A replica whose Postgres may be stopped and frozen."""
    config = write_config(tmp_path / "penstock.yaml", [engine.url])
    with GatewayProcess(config, own_postgres.address, redis_url) as running:
        yield running


@pytest.fixture
def lone_tenant(own_postgres: RunningServer) -> Tenant:
    """A tenant without limits in `own_postgres`."""
    return make_tenant(own_postgres.address)
