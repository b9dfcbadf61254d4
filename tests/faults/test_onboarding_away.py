"""Postgres stopped and frozen: OpenCode, which waits for two addresses before it starts, is answered all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.frozen import frozen, stopped
from tests.support.opencode_login import Developer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.dev.children import RunningServer
    from tests.support.gateway import GatewayProcess
    from tests.support.tenants import Tenant

CONFIG = "/opencode/config.json"


@pytest.mark.parametrize("away", [stopped, frozen])
def test_known_keys_get_their_models_and_others_a_reason(
    away: Callable[[RunningServer], AbstractContextManager[None]],
    lone_gateway: GatewayProcess,
    stranger: Tenant,
    lone_tenant: Tenant,
    own_postgres: RunningServer,
    tmp_path: Path,
) -> None:
    known, unknown = lone_gateway.http(lone_tenant.key), lone_gateway.http(stranger.key)
    whole = known.get(CONFIG).document
    assert whole["problem"] is None
    with away(own_postgres):
        assert known.get(CONFIG).document == whole
        told = unknown.get(CONFIG)
        assert (told.status, told.document["problem"]["code"]) == (200, "key-not-checked")
        assert list(told.document["config"]["provider"]["penstock"]["models"]) == ["key-not-checked"]
        assert lone_gateway.http("nonsense").get(CONFIG).document["problem"]["code"] == "key-not-accepted"
        for path in ("/.well-known/opencode", "/setup", "/setup.md"):
            assert unknown.get(path).status == 200
        developer = Developer(tmp_path)
        developer.logs_in(lone_gateway.url, lone_tenant.key)
        offered = whole["config"]["provider"]["penstock"]["models"]
        assert developer.models() == list(offered), "the real client starts"
