"""Budgets of sessions on a real Redis, over several replicas: each session has its own, begun from the ledger."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import redis as sync_redis

from gateway.admit import budgets as budgets_module
from gateway.admit.budget_keys import SESSION_KEPT_S
from gateway.domain.budget import LEDGER_START
from gateway.domain.principal import BudgetPeriod
from gateway.domain.usage import NO_USAGE
from gateway.edge.errors import DETAIL_HEADER, RETRIED_WORDS, error_event, render
from gateway.errors import BudgetExceeded, BudgetUnknown, LimitExceeded
from gateway.units import PICO_USD_PER_USD, PicoUsd
from tests.support.limiter import Limiter, limiter
from tests.support.limits import budget, model, principal
from tests.support.spending import per_request
from tests.unit.admit.scripted import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.admit.reservation import Reservation
    from gateway.domain.principal import Principal

REPLICAS = 2
COST = PicoUsd(10**9)
"""Of each request: a thousandth of a US dollar."""

FREE = PicoUsd(0)
M = model()


@pytest.fixture
async def replicas(redis_url: str) -> AsyncIterator[list[Limiter]]:
    """Several replicas on the shared Redis, whose ledgers know of nothing spent."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(limiter(redis_url, price=per_request(COST))) for _ in range(REPLICAS)]


@pytest.fixture
def redis(redis_url: str) -> Iterator[sync_redis.Redis]:
    """A connection to look with."""
    with sync_redis.Redis.from_url(redis_url) as client:
        yield client


async def ask(replica: Limiter, caller: Principal, session: str | None) -> Reservation:
    """Ask for one request in a session."""
    return await replica.admitter.admit(caller, replace(call(M), session=session))


async def spend(replica: Limiter, caller: Principal, session: str | None, cost: PicoUsd = COST) -> None:
    """Have one request answered, which costs as much."""
    (await ask(replica, caller, session)).settle(NO_USAGE, cost)
    await replica.quiet()


def counters(redis: sync_redis.Redis, caller: Principal) -> list[bytes]:
    """Return the keys of all budgets of the caller's organization."""
    return sorted(cast("list[bytes]", redis.keys(f"pst:{{{caller.organization_id.hex}}}:s:*")))


async def test_each_session_has_its_own_over_all_replicas(replicas: list[Limiter]) -> None:
    one, other = replicas
    caller = principal(budget(0.002, period=BudgetPeriod.SESSION))
    await spend(one, caller, "ses_1")
    await spend(other, caller, "ses_1")
    for replica in replicas:
        with pytest.raises(
            BudgetExceeded, match=r"^the session budget of 0\.002 USD is used up.* a new session has its"
        ):
            await ask(replica, caller, "ses_1")
    await spend(other, caller, "ses_2")
    for _ in range(3):
        await spend(one, caller, None)
    held = await ask(one, caller, "ses_2")
    with pytest.raises(LimitExceeded, match=r"of 0\.002 USD is held by requests that run"):
        await ask(other, caller, "ses_2")
    held.settle(NO_USAGE, FREE)
    await one.quiet()
    await spend(other, caller, "ses_2")


async def test_other_budgets_hold_beside_it_with_a_session_and_without(replicas: list[Limiter]) -> None:
    one, other = replicas
    caller = principal(budget(0.002, period=BudgetPeriod.SESSION), budget(0.003, period=BudgetPeriod.MONTH))
    await spend(one, caller, "ses_1")
    await spend(one, caller, "ses_1")
    with pytest.raises(BudgetExceeded, match="session budget"):
        await ask(one, caller, "ses_1")
    await spend(other, caller, None)
    for session in ("ses_1", "ses_2", None):
        with pytest.raises(BudgetExceeded, match="key budget per month is used up"):
            await ask(other, caller, session)


async def test_one_that_redis_has_forgotten_is_summed_up_again(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    one, other = replicas
    caller = principal(budget(0.003, period=BudgetPeriod.SESSION))
    for each in replicas:
        each.books.amount = COST
    await spend(one, caller, "ses_1")
    (asked,) = one.books.asked[0]
    assert (asked.period_start, asked.session) == (LEDGER_START, "ses_1")
    await spend(other, caller, "ses_1")
    assert other.books.asked == [], "Redis knows it"
    (counter,) = counters(redis, caller)
    assert b"ses_1" not in counter
    redis.delete(counter)
    for each in replicas:
        each.books.amount = PicoUsd(3 * COST)
    with pytest.raises(BudgetExceeded):
        await ask(other, caller, "ses_1")
    redis.flushall()
    other.books.away = True
    with pytest.raises(BudgetUnknown):
        await ask(other, caller, "ses_9")
    await ask(other, caller, None)


async def test_it_is_compared_with_the_ledger_as_others_are(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets_module, "PAUSE_S", 0.001)
    caller = principal(budget(1, period=BudgetPeriod.SESSION))
    for each in replicas:
        await spend(each, caller, "ses_1")
        each.books.amount = PicoUsd(5 * COST)
    assert sum(await asyncio.gather(*(each.book.resync() for each in replicas))) >= 1
    (counter,) = counters(redis, caller)
    assert redis.hmget(counter, "spent", "reserved") == [b"%d" % (5 * COST // 1000), b"0"]


async def test_a_counter_is_kept_as_long_as_its_session_goes_on(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    caller = principal(budget(1, period=BudgetPeriod.SESSION))
    await spend(replicas[0], caller, "ses_1")
    (counter,) = counters(redis, caller)
    for _ in range(2):
        assert SESSION_KEPT_S - 60 < redis.ttl(counter) <= SESSION_KEPT_S
        redis.expire(counter, 100)
        await spend(replicas[0], caller, "ses_1")


async def test_what_is_known_of_sessions_is_bounded(replicas: list[Limiter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets_module, "BUDGETS_MAX", 10)
    one = replicas[0]
    caller = principal(budget(1, period=BudgetPeriod.SESSION))
    await asyncio.gather(*(ask(one, caller, f"ses_{number}") for number in range(100)))
    await ask(one, caller, "ses_1")
    assert (len(one.book._told), len(one.book._used), len(one.book._asking)) == (10, 10, 0)


async def test_no_amount_makes_a_client_try_again(replicas: list[Limiter]) -> None:
    """OpenCode repeats what has a 500 in its words."""
    one = replicas[0]
    one.books.amount = PicoUsd(500 * PICO_USD_PER_USD)
    with pytest.raises(BudgetExceeded, match=r"^the session budget of 500\.00 USD is used up") as refused:
        await ask(one, principal(budget(500, period=BudgetPeriod.SESSION)), "ses_1")
    body, headers = render(refused.value)
    for told in (body, error_event(refused.value)):
        assert b"the session budget is used up; a new session has its own" in told
        assert not RETRIED_WORDS.search(told.decode())
    assert b"of 500.00 USD" in dict(headers)[DETAIL_HEADER]


async def test_without_redis_each_replica_has_its_share_of_each_session() -> None:
    async with limiter("redis://127.0.0.1:1", price=per_request(COST), timeout_s=0.05, replicas=2) as replica:
        caller = principal(budget(0.004, period=BudgetPeriod.SESSION))
        for session in ("ses_1", "ses_2"):
            for _ in range(2):
                await ask(replica, caller, session)
            with pytest.raises(LimitExceeded, match="session budget"):
                await ask(replica, caller, session)
        await ask(replica, caller, None)
        assert (replica.decisions("granted_locally"), replica.decisions("unlimited")) == (4, 1)
