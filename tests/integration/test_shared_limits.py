"""What limits let through when several replicas share them: measured, for the page of guarantees."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from tests.support.chat import chat
from tests.support.gateway import GatewayProcess, write_config
from tests.support.guarantees import measured
from tests.support.ledger import all_closed, opened_events
from tests.support.postgres import ask
from tests.support.proxy import Proxy
from tests.support.redis_setups import looking
from tests.support.servers import redis_time, run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
CLIENTS = 12
REPLICAS = 3
PER_MINUTE, BURST = 300, 40
TOKENS_PER_MINUTE, TOKENS_BURST = 30_000, 6000
WANTED = 150
"""Requests that are asked for: about three times what the limits let through meanwhile."""
FALLBACK = "penstock_limiter_fallback"


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three replicas before one engine."""
    folder = tmp_path_factory.mktemp("shared")
    with running_stack(databases, servers, folder, replicas=REPLICAS) as running:
        yield running


def asked_at_once(clients: list[Http], requests: int) -> tuple[list[Answer], float]:
    """Send requests from many clients over all replicas in turn; return the answers, and the seconds that it took."""
    barrier = threading.Barrier(CLIENTS)

    def send(number: int) -> list[Answer]:
        barrier.wait()
        each = range(number, requests, CLIENTS)
        return [clients[one % len(clients)].post(CHAT, chat("word " * 20, max_tokens=20)) for one in each]

    with ThreadPoolExecutor(CLIENTS) as pool:
        began_s = time.monotonic()
        answers = [answer for found in pool.map(send, range(CLIENTS)) for answer in found]
        return answers, time.monotonic() - began_s


def test_replicas_share_a_limit_of_requests(stack: Stack) -> None:
    tenant = stack.tenant(requests_per_minute=PER_MINUTE, requests_burst=BURST)
    answers, took_s = asked_at_once([gateway.http(tenant.key) for gateway in stack.gateways], WANTED)
    granted = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 429}
    assert len(granted) >= BURST, "what is allowed is let through"
    conditions = f"{REPLICAS} replicas, {CLIENTS} clients, {WANTED} requests"
    measured("requests-over-limit", max(len(granted) - int(BURST + took_s * PER_MINUTE / 60), 0), conditions)
    assert sum(gateway.metrics()[FALLBACK] for gateway in stack.gateways) == 0, "Redis decided"


def test_replicas_share_a_limit_of_tokens(stack: Stack) -> None:
    tenant = stack.tenant(tokens_per_minute=TOKENS_PER_MINUTE, tokens_burst=TOKENS_BURST)
    answers, took_s = asked_at_once([gateway.http(tenant.key) for gateway in stack.gateways], WANTED)
    granted = sum(answer.status == 200 for answer in answers)
    assert {answer.status for answer in answers} == {200, 429}
    rows = all_closed(stack.dsn, tenant, granted)
    used = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    # What was reserved may be more or less than what was used: the kinder of the two is held against the line.
    reserved = sum(
        row["estimate_prompt_tokens"] + row["estimate_completion_tokens"] for row in opened_events(stack.dsn, tenant)
    )
    line = TOKENS_BURST + took_s * TOKENS_PER_MINUTE / 60
    conditions = f"{REPLICAS} replicas, {CLIENTS} clients, {granted} of {WANTED} requests granted"
    measured("tokens-over-limit", max(min(used, reserved) - line, 0.0), conditions)
    assert sum(gateway.metrics()[FALLBACK] for gateway in stack.gateways) == 0, "Redis decided"


@contextmanager
def replica_on(proxy: Proxy, stack: Stack, folder: Path) -> Iterator[GatewayProcess]:
    """One more replica of the stack, which reaches Redis through a proxy."""
    config = write_config(folder / "penstock.yaml", [stack.engine.url])
    with GatewayProcess(config, stack.dsn, proxy.address) as gateway:
        yield gateway


def test_a_replica_without_redis_lets_through_no_more_than_the_limit_again(stack: Stack, tmp_path: Path) -> None:
    tenant = stack.tenant(requests_per_minute=PER_MINUTE, requests_burst=BURST)
    with Proxy(stack.redis_url) as proxy, replica_on(proxy, stack, tmp_path) as cut_off:
        client = cut_off.http(tenant.key)
        assert client.post(CHAT, chat(max_tokens=1)).status == 200
        proxy.freeze()
        wait_for(lambda: cut_off.metrics()[FALLBACK] == 1, "it limits by itself")
        clients = [client, *(gateway.http(tenant.key) for gateway in stack.gateways)]
        answers, took_s = asked_at_once(clients, WANTED)
        proxy.thaw()
        wait_for(lambda: cut_off.metrics()[FALLBACK] == 0, "it asks Redis again")
    granted = 1 + sum(answer.status == 200 for answer in answers)
    assert any(answer.status == 429 for answer in answers)
    line = BURST + took_s * PER_MINUTE / 60
    measured("redis-lost-in-part", granted / line, f"1 of {REPLICAS + 1} replicas without Redis")


def places(url: str, tenant: Tenant) -> list[tuple[str, str, float]]:
    """Return the places that a tenant's requests hold: the lease, who holds it, and when it lapses, in Unix time."""
    with looking(url, decode_responses=True) as store:
        found = []
        for key in store.scan_iter(f"pst:{{{tenant.organization_id.hex}}}:l:*"):
            held = cast("list[tuple[str, float]]", store.zrange(key, 0, -1, withscores=True))
            found += [(str(key), member, lapses_ms / 1000) for member, lapses_ms in held]
        return found


def test_the_places_of_a_killed_replica_lapse(stack: Stack, tmp_path: Path) -> None:
    """Nobody waits for half a minute here: Redis says when a place lapses, and holds it no longer than that."""
    tenant = stack.tenant()
    statement = """
        INSERT INTO limit_rule (organization_id, level, subject_id, concurrent_requests) VALUES ($1, 'key', $2, 1)
    """
    run_blocking(ask(stack.dsn, statement, tenant.organization_id, tenant.key_id))
    config = write_config(tmp_path / "penstock.yaml", [stack.engine.url])
    with GatewayProcess(config, stack.dsn, stack.redis_url) as dying:
        slow = {"tokens_per_second": 20, "output_tokens": 4000}
        with dying.http(tenant.key).stream(CHAT, chat(stream=True, sim=slow)) as stream:
            next(stream.data())
            dying.kill()
            ((key, member, lapses),) = places(stack.redis_url, tenant)
            left_s = lapses - redis_time(stack.redis_url)
        assert stack.gateway.http(tenant.key).post(CHAT, chat()).status == 429, "it still counts"
        measured("leases", left_s, "by Redis's clock, from the kill")
        # Made to lapse now, as it would by itself: the place is free again although nobody gave it back.
        with looking(stack.redis_url) as store:
            store.zadd(key, {member: (lapses - left_s) * 1000})
        assert stack.gateway.http(tenant.key).post(CHAT, chat()).status == 200
