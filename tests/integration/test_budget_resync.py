"""Budgets in Redis compared with the ledger: what was lost is made up for, what traffic explains is left alone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast
from uuid import UUID

import pytest
import redis as sync_redis

from gateway.admit import budgets
from gateway.domain.budget import Spent
from gateway.domain.usage import NO_USAGE
from gateway.errors import BudgetExceeded, LimitExceeded
from gateway.units import PicoUsd, new_event_id
from tests.support.limiter import Limiter, limiter
from tests.support.limits import budget, model, principal
from tests.support.spending import NANO, per_request
from tests.support.waiting import wait_until
from tests.unit.admit.scripted import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from gateway.domain.budget import BudgetKey
    from gateway.domain.principal import Principal

COST = PicoUsd(100 * NANO)
M = model()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between readings: nothing is on its way here."""
    monkeypatch.setattr(budgets, "PAUSE_S", 0.001)


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[list[Limiter]]:
    """Two replicas on the shared Redis."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(limiter(redis_url, price=per_request(COST))) for _ in range(2)]


@pytest.fixture
def redis(redis_url: str) -> Iterator[sync_redis.Redis]:
    """A connection to look with."""
    with sync_redis.Redis.from_url(redis_url) as client:
        yield client


async def used(replicas: list[Limiter]) -> tuple[Principal, str]:
    """Have both replicas use a budget, of which 2 * COST are then reserved; return its owner and key."""
    caller = principal(budget(1))
    for replica in replicas:
        await replica.admitter.admit(caller, call(M))
    limits = replicas[0].admitter._applicable(caller, M).tenant
    return caller, limits.period_keys(new_event_id().int >> 80).redis[0]


def known(replicas: list[Limiter], nano_usd: int) -> None:
    """Let the ledger say so."""
    for replica in replicas:
        replica.books.amount = PicoUsd(nano_usd * NANO)


def total(redis: sync_redis.Redis, key: str) -> int:
    """Return what is spent and reserved, in nano-USD."""
    return sum(int(amount) for amount in cast("list[bytes]", redis.hmget(key, "spent", "reserved")))


@pytest.mark.parametrize("ledger", [0, 150, 199, 201, 1_000])
async def test_what_redis_has_missed_is_added_once_whoever_finds_it(
    replicas: list[Limiter], redis: sync_redis.Redis, ledger: int
) -> None:
    _, key = await used(replicas)
    redis.hset(key, "spent", 500)
    known(replicas, ledger)
    corrected = await asyncio.gather(*(replica.book.resync() for replica in replicas))
    assert sum(corrected) >= 1
    assert total(redis, key) == max(ledger, 200), "what is reserved is not taken away"
    assert [await replica.book.resync() for replica in replicas] == [0, 0], "and nothing is left to do"


async def test_what_a_replica_that_died_held_is_spent_once_it_has_lapsed(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    _, key = await used(replicas)
    holds = key.replace(":s:", ":h:")
    for member in cast("list[bytes]", redis.zrange(holds, 0, -1)):
        redis.zincrby(holds, -(10**9), member)
    known(replicas, 130)
    assert await replicas[0].book.resync() == 1
    assert redis.hmget(key, "spent", "reserved") == [b"130", b"0"]
    assert redis.exists(holds) == 0


async def test_what_a_replica_that_died_held_is_let_go_once_the_ledger_has_its_end(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    _, key = await used(replicas)
    holds = key.replace(":s:", ":h:")
    first, second = cast("list[bytes]", redis.zrange(holds, 0, -1))
    redis.hset(key, "spent", 50)
    known(replicas, 170)
    for replica in replicas:
        replica.books.dead = {UUID(first.split()[0].decode())}
    await asyncio.gather(*(replica.book.resync() for replica in replicas))
    assert redis.hmget(key, "spent", "reserved") == [b"70", b"100"], "what it cost is spent, and the other one runs on"
    assert redis.zrange(holds, 0, -1) == [second]
    assert [await replica.book.resync() for replica in replicas] == [0, 0]


async def begun(replicas: list[Limiter], redis: sync_redis.Redis, *, limit: int) -> tuple[Principal, str]:
    """Have a budget of so many nano-USD begun, 20 of it spent and 500 open, and one request of COST granted."""
    for replica in replicas:
        replica.books.amount, replica.books.open = PicoUsd(20 * NANO), PicoUsd(500 * NANO)
    caller = principal(budget(limit / 10**9))
    await replicas[0].admitter.admit(caller, call(M))
    key = replicas[0].admitter._applicable(caller, M).tenant.period_keys(new_event_id().int >> 80).redis[0]
    assert redis.hmget(key, "spent", "reserved") == [b"20", b"600"]
    return caller, key


@pytest.mark.parametrize(
    ("closed", "open_", "counted"),
    [
        pytest.param(20, 600, (20, 600), id="all of them run"),
        pytest.param(50, 300, (50, 300), id="one has ended for less, another one runs"),
        pytest.param(320, 300, (320, 300), id="one has ended at what it held"),
        pytest.param(620, 300, (620, 300), id="one has ended for more"),
        pytest.param(30, 100, (30, 100), id="all have ended"),
        pytest.param(30, 40, (0, 100), id="what Redis knows one by one is not taken away"),
    ],
)
async def test_what_a_budget_was_begun_with_is_held_until_the_ledger_has_its_end(
    replicas: list[Limiter], redis: sync_redis.Redis, closed: int, open_: int, counted: tuple[int, int]
) -> None:
    _, key = await begun(replicas, redis, limit=10_000)
    await replicas[1].admitter.admit(principal(budget(1)), call(M))
    for replica in replicas:
        replica.books.amount, replica.books.open = PicoUsd(closed * NANO), PicoUsd(open_ * NANO)
        replica.book._used = replicas[0].book._used
    await asyncio.gather(*(replica.book.resync() for replica in replicas))
    assert redis.hmget(key, "spent", "reserved") == [b"%d" % each for each in counted]
    assert [await replica.book.resync() for replica in replicas] == [0, 0]


async def test_what_running_requests_hold_refuses_for_now_and_is_free_soon_after_their_end(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "SOON_S", 0.01)
    running = asyncio.ensure_future(replicas[0].admitter.run())
    try:
        caller, key = await begun(replicas, redis, limit=650)
        for replica in replicas:
            with pytest.raises(LimitExceeded, match="held by requests that run"):
                await replica.admitter.admit(caller, call(M))
        assert total(redis, key) <= 650
        replicas[0].books.amount, replicas[0].books.open = PicoUsd(40 * NANO), PicoUsd(100 * NANO)
        await wait_until(lambda: redis.hmget(key, "spent", "reserved") == [b"40", b"100"], "what has ended counts")
        for replica in replicas:
            await replica.admitter.admit(caller, call(M))
        assert replicas[0].book._rebuilt == {}, "and nobody looks again before the next minute"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_budget_that_is_begun_while_nothing_runs_is_not_looked_at_soon(replicas: list[Limiter]) -> None:
    await replicas[0].admitter.admit(principal(budget(1)), call(M))
    assert (replicas[0].book._rebuilt, replicas[0].book._begun.is_set()) == ({}, False)


async def test_what_dead_requests_hold_is_told_apart_from_what_a_budget_was_begun_with(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    _, key = await begun(replicas, redis, limit=10_000)
    held = cast("list[bytes]", redis.zrange(key.replace(":s:", ":h:"), 0, -1))
    (own,) = (each for each in held if not each.startswith(b"rebuilt"))
    replicas[0].books.dead = {UUID(own.split()[0].decode())}
    replicas[0].books.amount = PicoUsd(27 * NANO)
    assert await replicas[0].book.resync() == 1
    assert redis.hmget(key, "spent", "reserved") == [b"27", b"500"]


async def test_a_budget_that_only_refuses_is_compared_too(redis_url: str, redis: sync_redis.Redis) -> None:
    """Counted too high by whom nobody can ask any more, it would refuse a replica that never saw it grant anything."""
    async with limiter(redis_url, price=per_request(COST)) as fresh:
        caller = principal(budget(1))
        sums = fresh.admitter._applicable(caller, M).tenant
        redis.hset(sums.period_keys(new_event_id().int >> 80).redis[0], mapping={"spent": 10**12, "reserved": 0})
        with pytest.raises(BudgetExceeded):
            await fresh.admitter.admit(caller, call(M))
        known([fresh], 0)
        assert await fresh.book.resync() == 1
        await fresh.admitter.admit(caller, call(M))


async def test_what_is_right_is_left_alone(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    _, key = await used(replicas)
    known(replicas, 200)
    assert [await replica.book.resync() for replica in replicas] == [0, 0]
    assert redis.hget(key, "mended") is None


@pytest.mark.parametrize("ledger", ["before", "between", "after"])
async def test_what_traffic_explains_is_left_alone(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    """While Redis is read twice and the ledger in between, requests come and go."""
    caller, key = await used(replicas)
    replica = replicas[0]

    async def spent(asked: Sequence[BudgetKey]) -> list[Spent]:
        known_then = {"before": total(redis, key), "between": total(redis, key) + 100, "after": total(redis, key) + 300}
        for _ in range(3):
            await replicas[1].admitter.admit(caller, call(M))
        return [Spent(PicoUsd(known_then[ledger] * NANO), PicoUsd(0)) for _ in asked]

    monkeypatch.setattr(replica.books, "spent", spent)
    assert await replica.book.resync() == 0
    assert total(redis, key) == 200 + budgets.READINGS * 300


async def test_a_difference_that_comes_and_goes_is_left_alone(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await used(replicas)
    sums = iter([150, 200, 150])

    async def spent(asked: Sequence[BudgetKey]) -> list[Spent]:
        amount = next(sums)
        return [Spent(PicoUsd(amount * NANO), PicoUsd(0)) for _ in asked]

    monkeypatch.setattr(replicas[0].books, "spent", spent)
    assert await replicas[0].book.resync() == 0
    assert total(redis, key) == 200


async def test_a_replica_whose_own_events_are_not_in_the_ledger_yet_compares_nothing(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await used(replicas)
    known(replicas, 9)
    monkeypatch.setattr(replicas[0].book, "_ledger_lag_s", lambda: 5.0)
    assert await replicas[0].book.resync() == 0
    replicas[1].books.away = True
    assert await replicas[1].book.resync() == 0
    assert total(redis, key) == 200


async def test_only_what_was_used_of_late_is_compared(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await used(replicas)
    monkeypatch.setattr(budgets, "USED_S", -1.0)
    known(replicas, 9)
    before = len(replicas[0].books.asked)
    assert await replicas[0].book.resync() == 0
    assert (total(redis, key), len(replicas[0].books.asked)) == (200, before)


async def test_what_was_limited_locally_is_made_up_for_as_soon_as_redis_is_back(
    redis_url: str, redis: sync_redis.Redis
) -> None:
    async with limiter(redis_url, price=per_request(COST)) as replica:
        running = asyncio.ensure_future(replica.admitter.run())
        try:
            caller, key = await used([replica])
            (node,) = replica.store.redis.nodes
            node.away("the test says so")
            local = await replica.admitter.admit(caller, call(M))
            local.settle(NO_USAGE, COST)
            replica.books.amount = PicoUsd(200 * NANO)
            await wait_until(lambda: replica.store.available, "Redis is back")
            replica.books.amount = PicoUsd(300 * NANO)
            await replica.admitter.admit(caller, call(M))
            await wait_until(lambda: total(redis, key) == 300, "what was limited locally counts")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
