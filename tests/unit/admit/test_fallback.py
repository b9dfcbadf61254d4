"""All limits while Redis is away, under the policy `local`: this replica's share of places and of money."""

from __future__ import annotations

import pytest

from gateway.admit import local
from gateway.admit.reservation import NO_COST
from gateway.domain.config import ModelLimits
from gateway.domain.usage import NO_USAGE
from gateway.errors import BudgetExceeded, BudgetUnknown, LimiterUnavailable, LimitExceeded
from gateway.units import PicoUsd
from tests.support.clock import Clock
from tests.support.limits import budget, model, places, principal, requests
from tests.support.spending import NANO, per_request
from tests.unit.admit.scripted import Desk, call, make_desk

COST = PicoUsd(10**9)
"""Of each request: a thousandth of a US dollar."""


def away(replicas: int) -> Desk:
    """Return a desk whose Redis is away."""
    desk = make_desk("local", replicas=replicas)
    desk.store.available = False
    desk.prices.effective = per_request(COST)
    return desk


@pytest.mark.parametrize(("replicas", "share"), [(1, 7), (2, 3), (3, 2), (20, 1)])
async def test_each_replica_has_its_share_of_the_places(replicas: int, share: int) -> None:
    desk, caller = away(replicas), principal(places(7), requests(1, burst=6_000))
    running = [await desk.admitter.admit(caller, call(model())) for _ in range(share)]
    with pytest.raises(LimitExceeded, match="key concurrent requests") as refused:
        await desk.admitter.admit(caller, call(model()))
    left = 6_000 // replicas - share
    assert dict(refused.value.headers)[b"x-ratelimit-remaining-requests"] == b"%d" % left
    running[0].settle(NO_USAGE, NO_COST)
    await desk.admitter.admit(caller, call(model()))
    assert desk.decisions("refused_concurrency") == 1


async def test_requests_that_redis_granted_hold_places_too() -> None:
    desk, caller = make_desk("local", replicas=2), principal(places(4))
    running = [await desk.admitter.admit(caller, call(model())) for _ in range(2)]
    for claim in desk.store.claims:
        desk.store.leases.hold(claim)  # as the store does that is scripted here
    desk.store.available = False
    with pytest.raises(LimitExceeded):
        await desk.admitter.admit(caller, call(model()))
    assert len(running) == len(desk.store.leases) == 2


async def test_what_redis_told_of_a_budget_is_where_its_share_begins() -> None:
    desk, caller = away(2), principal(budget(0.010))
    desk.store.available = True
    await desk.admitter.admit(caller, call(model()))  # of which Redis tells what was taken: 0.001 USD
    desk.store.available = False
    running = [await desk.admitter.admit(caller, call(model())) for _ in range(4)]
    assert desk.books.asked == []
    with pytest.raises(LimitExceeded, match="held by requests that run"):
        await desk.admitter.admit(caller, call(model()))
    running[0].settle(NO_USAGE, PicoUsd(600_000 * NANO))
    with pytest.raises(LimitExceeded):
        await desk.admitter.admit(caller, call(model()))
    running[1].withdraw()
    await desk.admitter.admit(caller, call(model()))


async def test_what_nobody_has_told_yet_is_asked_of_the_ledger_once() -> None:
    desk, caller = away(1), principal(budget(0.010))
    desk.books.amount = PicoUsd(8 * COST)
    for _ in range(2):
        (await desk.admitter.admit(caller, call(model()))).settle(NO_USAGE, COST)
    with pytest.raises(BudgetExceeded):
        await desk.admitter.admit(caller, call(model()))
    assert len(desk.books.asked) == 1
    desk.books.away = True
    with pytest.raises(BudgetUnknown) as refused:
        await desk.admitter.admit(principal(budget(1)), call(model()))
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (503, "budget_unknown", 1.0)


async def test_a_spent_share_is_not_a_spent_budget() -> None:
    desk, caller = away(2), principal(budget(0.010))
    for _ in range(5):
        (await desk.admitter.admit(caller, call(model()))).settle(NO_USAGE, COST)
    with pytest.raises(LimitExceeded):  # another replica may have half of it left
        await desk.admitter.admit(caller, call(model()))


async def test_what_one_limit_refuses_takes_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.put_into(local, monkeypatch)
    desk, caller = away(1), principal(requests(2), places(3), budget(0.002))
    first = await desk.admitter.admit(caller, call(model()))
    await desk.admitter.admit(caller, call(model()))
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            await desk.admitter.admit(caller, call(model()))
    first.withdraw()
    await desk.admitter.admit(caller, call(model()))


async def test_a_models_own_limit_is_shared_out_and_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.put_into(local, monkeypatch)
    desk, caller = away(2), principal(requests(100), places(50))
    asked = model(limits=ModelLimits(requests_per_minute=6))
    for _ in range(3):
        await desk.admitter.admit(caller, call(asked))
    for _ in range(20):
        with pytest.raises(LimitExceeded, match="deployment requests per minute for m"):
            await desk.admitter.admit(caller, call(asked))
    assert len(desk.store.leases) == 3


async def test_other_policies_ask_nobody() -> None:
    desk, caller = make_desk("deny"), principal(places(1), budget(0))
    desk.store.available = False
    with pytest.raises(LimiterUnavailable):
        await desk.admitter.admit(caller, call(model()))
    desk = make_desk("allow")
    desk.store.available = False
    desk.prices.effective = per_request(COST)
    for _ in range(3):
        reservation = await desk.admitter.admit(caller, call(model()))
        assert reservation.worst_cost == COST
        reservation.settle(NO_USAGE, COST)
    assert desk.books.asked == []
