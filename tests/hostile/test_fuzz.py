"""Mutated requests against a real replica: every answer is HTTP and none is a fault, and nothing is left behind.

Another seed: PENSTOCK_TEST_SEED=N; more cases: PENSTOCK_TEST_CASES=N. A failure names the case; the replica's log is
looked through when the stack ends.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.hostile.fuzz_client import IllFormed, exchange, provoke
from tests.hostile.mutations import VALID, mutated_body
from tests.hostile.seed import random_of, seed
from tests.hostile.wire_mutations import mutated_request
from tests.support.chat import chat
from tests.support.ledger import closed_events, opened_events
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CASES = int(os.environ.get("PENSTOCK_TEST_CASES", "10000"))
BODY_CASES = CASES * 17 // 20
PIPELINED = 25
AT_ONCE = 4
WIRE_AT_ONCE = 300
GROWTH_BYTES_MAX = 24 * 2**20
"""What the allocator and bounded caches may keep. A leak of 4 KiB a case would be 40 MiB."""


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that waits for nobody."""
    with running_stack(
        databases,
        servers,
        tmp_path_factory.mktemp("fuzz"),
        body_bytes_max=2**20,
        header_timeout_s=0.5,
        body_timeout_s=0.5,
        keep_alive_timeout_s=1,
        log_level="warning",
    ) as running:
        yield running


def body_case(number: int, key: str) -> bytes:
    """Return a well-framed request with a mutated body."""
    random = random_of(number)
    path, document = random.choice(VALID)
    body = mutated_body(random, document)
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def wire_case(number: int, key: str) -> bytes:
    """Return a request whose head or framing is mutated."""
    random = random_of(number)
    path, document = random.choice(VALID)
    body = mutated_body(random, document) if random.random() < 0.2 else json.dumps(document).encode()
    return mutated_request(random, path.encode(), key.encode(), body)


async def send_bodies(stack: Stack, key: str, numbers: range) -> dict[int, int]:
    """Send cases by keep-alive and pipelining, and return how many answers had which status."""
    seen: dict[int, int] = {}
    free = asyncio.Semaphore(AT_ONCE)

    async def batch(begin: int) -> None:
        cases = range(begin, min(begin + PIPELINED, numbers.stop))
        async with free:
            sent = [body_case(number, key) for number in cases]
            answers = await exchange(stack.gateway.port, sent)
        for number, request, answer in zip(cases, sent, answers, strict=True):
            assert answer is not None, f"seed {seed()}, case {number}: no answer to {request[:500]!r}"
            status, body = answer
            assert status < 500, f"seed {seed()}, case {number}: {status} {body[:500]!r} to {request[:500]!r}"
            assert status == 200 or b'"error"' in body
            seen[status] = seen.get(status, 0) + 1

    async with asyncio.TaskGroup() as group:
        for begin in range(numbers.start, numbers.stop, PIPELINED):
            group.create_task(batch(begin))
    return seen


async def send_anything(stack: Stack, key: str, numbers: range) -> dict[int, int]:
    """Send cases on a connection each, and return how many answers had which status."""
    seen: dict[int, int] = {}
    free = asyncio.Semaphore(WIRE_AT_ONCE)

    async def one(number: int) -> None:
        sent = wire_case(number, key)
        about = f"seed {seed()}, case {number}: {sent[:500]!r}"
        async with free:
            try:
                answers = await provoke(stack.gateway.port, sent)
            except (IllFormed, TimeoutError) as error:
                raise AssertionError(f"{about}: {error!r}") from None
        for status, body in answers:
            assert status < 500, f"{about}: {status} {body[:500]!r}"
            seen[status] = seen.get(status, 0) + 1

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(one(number))
    return seen


def assert_settled(stack: Stack, tenant: Tenant) -> None:
    """Assert that nothing runs, that every event is closed, that no connection is kept, and that the replica serves."""
    wait_for(lambda: stack.gateway.metrics()["penstock_requests_in_flight"] == 0, "nothing is in flight")
    stack.engine.wait_for(lambda counters: counters["running"] == counters["waiting"] == 0)
    assert stack.gateway.http(tenant.key).post("/v1/chat/completions", chat()).status == 200

    def balanced() -> bool:
        opened = {row["event_id"] for row in opened_events(stack.dsn, tenant)}
        return opened == {row["event_id"] for row in closed_events(stack.dsn, tenant)}

    wait_for(balanced, "every event is closed, once")
    process = psutil.Process(stack.gateway.pid)
    wait_for(
        lambda: not [c for c in process.net_connections("tcp") if c.laddr.port == stack.gateway.port and c.raddr],
        "no connection is left",
    )


def rss_bytes(stack: Stack) -> int:
    """Return the memory of the replica."""
    return int(psutil.Process(stack.gateway.pid).memory_info().rss)


async def test_mutated_bodies_are_refused_and_nothing_more(stack: Stack) -> None:
    tenant = stack.tenant()
    warm = BODY_CASES // 5
    seen = await send_bodies(stack, tenant.key, range(warm))
    before = rss_bytes(stack)
    for status, count in (await send_bodies(stack, tenant.key, range(warm, BODY_CASES))).items():
        seen[status] = seen.get(status, 0) + count
    grown = rss_bytes(stack) - before
    assert sum(seen.values()) == BODY_CASES
    assert seen[200] > BODY_CASES // 20, f"some mutations are harmless: {seen}"
    assert seen[400] > BODY_CASES // 5, f"most are not: {seen}"
    assert_settled(stack, tenant)
    assert grown < GROWTH_BYTES_MAX, f"{grown / 2**20:.1f} MiB more, after {seen}"


async def test_mutated_heads_and_framings_are_refused_and_nothing_more(stack: Stack) -> None:
    tenant = stack.tenant()
    warm = BODY_CASES + (CASES - BODY_CASES) // 3
    seen = await send_anything(stack, tenant.key, range(BODY_CASES, warm))
    before = rss_bytes(stack)
    for status, count in (await send_anything(stack, tenant.key, range(warm, CASES))).items():
        seen[status] = seen.get(status, 0) + count
    grown = rss_bytes(stack) - before
    assert {200, 400, 401, 404, 405, 408} <= seen.keys(), seen
    assert_settled(stack, tenant)
    assert grown < GROWTH_BYTES_MAX, f"{grown / 2**20:.1f} MiB more, after {seen}"
