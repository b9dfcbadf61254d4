"""Limits of a model over all tenants, from penstock.yaml: shared, changed while running, levels kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.gateway import SIM_MODEL, write_config
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http, RawConnection
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
ASKED = chat(max_tokens=1)


def models(**limits: int) -> dict[str, Mapping[str, object]]:
    """Return the models of penstock.yaml: `sim` with these limits, `free` without."""
    return {"sim": SIM_MODEL | {"limits": limits}, "free": {"pool": "gpu", "upstream": "sim"}}


@pytest.fixture
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas whose model `sim` takes five requests at once, and one a minute then."""
    config = {"models": models(requests_per_minute=1, requests_burst=5)}
    with running_stack(databases, servers, tmp_path_factory.mktemp("models"), replicas=2, config=config) as running:
        yield running


def configured(stack: Stack, **limits: int) -> None:
    """Give `sim` these limits in every replica."""
    before = [gateway.metrics()["penstock_config_generation"] for gateway in stack.gateways]
    for gateway in stack.gateways:
        write_config(gateway.config, [stack.engine.url], models=models(**limits))
    wait_for(
        lambda: all(
            gateway.metrics()["penstock_config_generation"] > generation
            for gateway, generation in zip(stack.gateways, before, strict=True)
        ),
        "the new limits are in force",
    )


def holding(stack: Stack, client: Http) -> RawConnection:
    """Take the only place for long, once whoever had it has let go, and return the connection that holds it."""
    held: list[RawConnection] = []

    def taken() -> bool:
        running = stack.engine.counters()["running"]
        held.append(client.asked(CHAT, chat(sim={"ttft_ms": 60_000})))
        with contextlib.suppress(AssertionError):
            wait_for(lambda: stack.engine.counters()["running"] > running, "it runs", timeout_s=1.0)
            return True
        held.pop().hang_up()
        return False

    wait_for(taken, "the place is taken")
    return held[0]


def test_a_changed_limit_keeps_the_level_that_all_tenants_have_left(stack: Stack) -> None:
    clients = [gateway.http(stack.tenant().key) for gateway in stack.gateways]
    assert [clients[number % 2].post(CHAT, ASKED).status for number in range(3)] == [200] * 3
    configured(stack, requests_per_minute=1, requests_burst=50)
    assert [clients[number % 2].post(CHAT, ASKED).status for number in range(2)] == [200] * 2
    for client in clients:
        refused = client.post(CHAT, ASKED)
        assert_refused(refused, 429, "rate_limit_exceeded")
        assert "deployment requests per minute for sim" in refused.error["message"]
        assert client.post(CHAT, chat(max_tokens=1, model="free")).status == 200
    configured(stack, concurrent_requests=1)
    for client in clients:
        wait_for(lambda: client.post(CHAT, ASKED).status == 200, "the place of the one before is free")  # noqa: B023 - used up within the turn of the loop
    held = holding(stack, clients[0])
    try:
        wait_for(lambda: clients[1].post(CHAT, ASKED).status == 429, "the only place is taken, by another tenant")
    finally:
        held.hang_up()
    wait_for(lambda: clients[1].post(CHAT, ASKED).status == 200, "it is free again")
