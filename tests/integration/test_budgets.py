"""Budgets on a real Redis, over several replicas: not a nano-USD more than they are, begun from the ledger."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import redis as sync_redis

from gateway.admit.budget_counters import KEPT_S
from gateway.admit.budget_keys import redis_keys
from gateway.admit.policy import BUDGET_WAIT_MS
from gateway.domain.budget import Spent
from gateway.domain.principal import BudgetPeriod, Level
from gateway.domain.usage import NO_USAGE
from gateway.errors import BudgetExceeded, BudgetUnknown, GatewayError, LimitExceeded
from gateway.units import PicoUsd, new_event_id
from tests.support.limiter import Limiter, limiter
from tests.support.limits import budget, model, places, principal, requests
from tests.support.records import event_id_at
from tests.support.spending import NANO, per_request, per_token
from tests.unit.admit.scripted import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from gateway.admit.reservation import Reservation
    from gateway.domain.budget import BudgetKey
    from gateway.domain.principal import Principal

REPLICAS = 3
COST = PicoUsd(10**9)
"""Of each request: a thousandth of a US dollar."""

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


def key_of(replica: Limiter, caller: Principal) -> str:
    """Return the key of a caller's first budget now."""
    limits = replica.admitter._applicable(caller, M).tenant
    return limits.period_keys(new_event_id().int >> 80).redis[0]


def state(redis: sync_redis.Redis, key: str) -> tuple[int, int]:
    """Return what is spent and reserved of a budget, in nano-USD."""
    spent, reserved = cast("list[bytes]", redis.hmget(key, "spent", "reserved"))
    return int(spent), int(reserved)


async def asked(replica: Limiter, caller: Principal, times: int) -> list[Reservation | GatewayError]:
    """Ask so often at the same time."""
    outcomes = await asyncio.gather(
        *(replica.admitter.admit(caller, call(M)) for _ in range(times)), return_exceptions=True
    )
    return cast("list[Reservation | GatewayError]", outcomes)


async def test_no_more_is_spent_than_may_be(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    caller = principal(budget(0.025), budget(1, level=Level.TEAM, period=BudgetPeriod.MONTH))
    served, rounds = 0, 0
    while served < 25:
        rounds += 1
        assert rounds < 10
        outcomes = [
            one for many in await asyncio.gather(*(asked(each, caller, 20) for each in replicas)) for one in many
        ]
        for outcome in outcomes:
            if isinstance(outcome, GatewayError):
                assert isinstance(outcome, LimitExceeded), "what is reserved may come back"
                assert outcome.retry_after_s == BUDGET_WAIT_MS / 1000
            else:
                assert (outcome.worst_cost, outcome.output_allowance) == (COST, math.inf)
                served += 1
                outcome.settle(NO_USAGE, COST) if served % 2 else outcome.settle(NO_USAGE, PicoUsd(1 * NANO))
        for replica in replicas:
            await replica.quiet()
    spent, reserved = state(redis, key_of(replicas[0], caller))
    assert (spent, reserved) == ((served + 1) // 2 * 10**6 + served // 2, 0)
    while not isinstance(last := (await asked(replicas[0], caller, 1))[0], BudgetExceeded):
        assert not isinstance(last, GatewayError)
        last.settle(NO_USAGE, COST)
        await replicas[0].quiet()
    assert (last.status, last.code, last.retry_after_s, last.permanent) == (402, "budget_exceeded", None, True)
    assert last.message.startswith("the key budget per day is used up, or too little is left for as long an answer")
    assert 24 * 10**6 < state(redis, key_of(replicas[0], caller))[0] <= 25 * 10**6


async def test_what_the_ledger_knows_is_spent_already_and_it_is_asked_once(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    replicas[0].books.amount = PicoUsd(9 * COST)
    caller = principal(budget(0.012))
    outcomes = await asked(replicas[0], caller, 30)
    assert sum(not isinstance(one, GatewayError) for one in outcomes) == 3
    assert [len(each) for each in replicas[0].books.asked] == [1], "thirty requests, one question"
    await asked(replicas[1], caller, 1)
    assert replicas[1].books.asked == [], "another replica finds it begun"
    redis.flushdb()
    assert all(isinstance(one, GatewayError) for one in (await asked(replicas[0], caller, 4))[3:])
    assert state(redis, key_of(replicas[0], caller)) == (9 * 10**6, 3 * 10**6)
    assert replicas[0].decisions("granted") == 6


async def test_a_ledger_that_cannot_be_asked_is_said_and_not_asked_by_everybody(
    replicas: list[Limiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = replicas[0]
    replica.books.away = True
    outcomes = await asked(replica, principal(budget(1)), 10) + await asked(replica, principal(budget(1)), 10)
    assert all(isinstance(one, BudgetUnknown) for one in outcomes)
    assert [(one.status, one.code, one.retry_after_s) for one in outcomes if isinstance(one, BudgetUnknown)][:1] == [
        (503, "budget_unknown", 1.0)
    ]
    assert len(replica.books.asked) == 1
    assert replica.decisions("budget_unknown") == 20
    monkeypatch.setattr(replica.book, "_away_until_s", 0.0)
    replica.books.away = False
    assert not isinstance((await asked(replica, principal(budget(1)), 1))[0], GatewayError)


async def test_all_or_nothing_and_what_waiting_cannot_help_first(
    replicas: list[Limiter], redis: sync_redis.Redis
) -> None:
    caller = principal(requests(1, burst=1), places(1), budget(0.0015))
    (first,) = await asked(replicas[0], caller, 1)
    assert not isinstance(first, GatewayError)
    (second,) = await asked(replicas[0], caller, 1)
    assert isinstance(second, LimitExceeded), "what is reserved may come back"
    assert "requests per minute" in second.message, "the longest wait"
    assert state(redis, key_of(replicas[0], caller)) == (0, 10**6)
    first.settle(NO_USAGE, COST)
    await replicas[0].quiet()
    (third,) = await asked(replicas[0], caller, 1)
    assert isinstance(third, BudgetExceeded)
    assert replicas[0].decisions("refused_budget") == 1


async def test_settling_twice_or_late_changes_nothing(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    caller = principal(budget(1))
    (granted,) = await asked(replicas[0], caller, 1)
    assert not isinstance(granted, GatewayError)
    claim = granted._claim
    assert claim is not None
    granted.settle(NO_USAGE, PicoUsd(5 * NANO))
    replicas[0].store.settle_soon(claim, claim.usage, 7)
    await replicas[0].quiet()
    assert state(redis, key_of(replicas[0], caller)) == (5, 0)


async def test_a_changed_amount_keeps_what_was_spent(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    caller = principal(budget(0.010))
    for one in await asked(replicas[0], caller, 4):
        assert not isinstance(one, GatewayError)
        one.settle(NO_USAGE, COST)
    await replicas[0].quiet()
    lowered = replace(caller, budgets=(replace(caller.budgets[0], amount=PicoUsd(3 * COST)),))
    assert isinstance((await asked(replicas[1], lowered, 1))[0], BudgetExceeded)
    raised = replace(caller, budgets=(replace(caller.budgets[0], amount=PicoUsd(6 * COST)),))
    outcomes = await asked(replicas[2], raised, 5)
    assert sum(not isinstance(one, GatewayError) for one in outcomes) == 2
    assert state(redis, key_of(replicas[0], caller)) == (4 * 10**6, 2 * 10**6)


async def test_a_period_is_that_in_which_a_request_was_opened(replicas: list[Limiter], redis: sync_redis.Redis) -> None:
    today = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    caller = principal(budget(0.001), budget(1, period=BudgetPeriod.MONTH))
    before = call(M, event_id=event_id_at(today - dt.timedelta(milliseconds=1)))
    late = await replicas[0].admitter.admit(caller, before)
    (first,) = await asked(replicas[0], caller, 1)
    assert not isinstance(first, GatewayError), "yesterday's does not count"
    late.settle(NO_USAGE, COST)
    await replicas[0].quiet()
    yesterday = replicas[0].books.asked[0][0]
    assert yesterday.period_start == today - dt.timedelta(days=1)
    assert yesterday.period_end == today
    assert state(redis, redis_keys(yesterday)[0]) == (10**6, 0)
    kept_ms = redis.pttl(redis_keys(yesterday)[0])
    until_s = (today - dt.datetime.now(dt.UTC)).total_seconds() + KEPT_S
    assert kept_ms / 1000 == pytest.approx(until_s, abs=60)


async def test_a_stream_is_given_what_is_left_where_it_is_stopped_there(
    redis_url: str, redis: sync_redis.Redis
) -> None:
    async with limiter(redis_url, price=per_token(1_000 * NANO, 1_000 * NANO)) as replica:
        stops = principal(budget(0.0005, stops=True))
        prompt = 150 * 1_000 * NANO  # a hundred tokens are expected
        stream = await replica.admitter.admit(stops, call(M, stream=True, output_max=1_000))
        assert stream.worst_cost == PicoUsd(500_000 * NANO)
        assert stream.output_allowance == 500 - 150
        assert state(redis, key_of(replica, stops)) == (0, 500_000)
        with pytest.raises(LimitExceeded):
            await replica.admitter.admit(stops, call(M, stream=True, output_max=1_000))
        stream.settle(NO_USAGE, PicoUsd(500_000 * NANO - prompt - 1))
        await replica.quiet()
        with pytest.raises(BudgetExceeded):
            await replica.admitter.admit(stops, call(M, stream=True, output_max=1_000))
        with pytest.raises(BudgetExceeded):
            await replica.admitter.admit(principal(budget(0.0005)), call(M, stream=True, output_max=1_000))
        with pytest.raises(BudgetExceeded):
            await replica.admitter.admit(principal(budget(0.0005, stops=True)), call(M, output_max=1_000))


async def test_what_costs_nothing_needs_no_budget(redis_url: str) -> None:
    async with limiter(redis_url) as replica:
        reservation = await replica.admitter.admit(principal(budget(0)), call(M))
        assert (reservation.worst_cost, reservation.output_allowance, replica.books.asked) == (0, math.inf, [])


async def test_a_request_that_is_cancelled_while_its_budget_is_summed_up_takes_nothing(
    replicas: list[Limiter], redis: sync_redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, caller = replicas[0], principal(budget(1), places(1))
    asking, answer = asyncio.Event(), asyncio.Event()

    async def spent(budgets: Sequence[BudgetKey]) -> list[Spent]:
        asking.set()
        await answer.wait()
        return [Spent(PicoUsd(0), PicoUsd(0)) for _ in budgets]

    monkeypatch.setattr(replica.books, "spent", spent)
    waiting = asyncio.ensure_future(replica.admitter.admit(caller, call(M)))
    await asking.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    answer.set()
    (granted,) = await asked(replica, caller, 1)
    assert not isinstance(granted, GatewayError), "the place is free, and the sum has gone on for those after it"
    assert state(redis, key_of(replica, caller)) == (0, 10**6)
