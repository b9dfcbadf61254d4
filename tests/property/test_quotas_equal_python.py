"""Leases and budgets in the Lua scripts on a real Redis equal the Python reference, whatever the sequence of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.admit.budget import NANO_USD_MAX, BudgetTerms
from tests.support.limiter_scripts import RESERVATION_MS
from tests.support.quota_scripts import CAPACITY, Quotas, QuotaScripts
from tests.support.servers import COMMAND_S_MAX, empty_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.dev.servers import ServerAddresses


class Reserve(NamedTuple):
    event: str
    requests: int
    worst: int
    least_share: float


class Settle(NamedTuple):
    event: str | None  # None: whichever is open
    requests: int
    cost: int


class Withdraw(NamedTuple):
    event: str


class Begin(NamedTuple):
    spent: int
    open: int = 0


class Mend(NamedTuple):
    delta: int
    rebuilt_max: int
    times: int  # 0: it was read just now; more: others have corrected it since


class Renew(NamedTuple):
    events: list[str]


class Elapse(NamedTuple):
    seconds: int


class Lapse(NamedTuple):
    """The records of all reservations go, and what they hold."""


Step = Reserve | Settle | Withdraw | Begin | Mend | Renew | Elapse | Lapse

LATE_S = RESERVATION_MS // 1000 + 1
events = st.sampled_from("abcdef")
requests = st.sampled_from([1, 1, 1, 1, 1, CAPACITY + 1])
money = st.one_of(st.integers(0, 40), st.integers(0, 400), st.integers(0, 2**51))
reserves = st.builds(Reserve, events, requests, money, st.sampled_from([0.0, 0.1, 1.0, 1.0]))
steps = st.lists(
    st.one_of(
        reserves,
        reserves,
        reserves,
        st.builds(Settle, events, st.integers(0, 2), money),
        st.builds(Settle, st.none(), st.integers(0, 2), money),
        st.builds(Withdraw, events),
        st.builds(Begin, money, money),
        st.builds(Mend, st.one_of(st.just(0), st.integers(-400, 400)), money, st.sampled_from([0, 0, 0, 1])),
        st.builds(Renew, st.lists(events, max_size=3, unique=True)),
        st.builds(Elapse, st.sampled_from([10, 20, 31, LATE_S])),
        st.builds(Lapse),
    ),
    min_size=5,
    max_size=30,
)
KEPT_MS = 10**11
"""Longer than a test and shorter than what a budget is begun with, so that either is known by it."""

terms = st.builds(
    BudgetTerms,
    st.one_of(st.integers(0, 400), st.sampled_from([2**52, NANO_USD_MAX])),
    st.booleans(),
    st.sampled_from([0, KEPT_MS]),
)


SETTLED_LATE = [
    Reserve("a", 1, 60, 1.0),
    Elapse(LATE_S),
    Reserve("b", 1, 60, 1.0),
    Settle("a", 1, 10),
    Reserve("b", 1, 60, 1.0),
]
"""What lapsed counts as spent at once, and at what it really cost once that is known."""

REBUILT = [
    Reserve("a", 1, 20, 1.0),
    Reserve("b", 1, 20, 1.0),
    Mend(-30, 30, 0),
    Reserve("b", 1, 20, 1.0),
    Mend(0, 0, 0),
]
"""What was open when a budget was begun refuses for now, what of it has ended is given back or spent."""


@pytest.fixture(scope="module")
def client(servers: ServerAddresses) -> Iterator[redis.Redis]:
    """A client of the shared Redis, emptied."""
    empty_redis(servers.redis_url)
    with redis.Redis.from_url(servers.redis_url, socket_timeout=COMMAND_S_MAX) as client:
        yield client


@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(terms, max_size=3),
    st.sampled_from([[], [Begin(0)], [Begin(20, 60)]]),
    steps,
)
@example([], [BudgetTerms(100, stops=False)], [Begin(0)], SETTLED_LATE)
@example([], [BudgetTerms(100, stops=False)], [Begin(10, 60)], REBUILT)
@settings(max_examples=200)
def test_any_sequence(
    client: redis.Redis, places: list[int], some: list[BudgetTerms], begins: list[Step], sequence: Sequence[Step]
) -> None:
    reference = Quotas(places, some)
    scripts = QuotaScripts(client, f"pst:{{{uuid4().hex}}}", reference)
    used = False
    for step in (*begins, *sequence):
        apply(step, reference, scripts)
        assert scripts.places() == [set(held) for held in reference.leases]
        states = [None if state is None else (state.spent, state.reserved) for state in reference.budgets]
        assert scripts.budgets() == states
        held = [{event: amount for event, (amount, _) in holds.items()} for holds in reference.holds]
        assert scripts.holds() == held
        used = used or any(taken[1] for taken in reference.taken.values() if taken)
        for term, lives_ms in zip(some, scripts.lives_ms(), strict=True):
            assert lives_ms < 0 or (lives_ms <= KEPT_MS) == bool(term.kept_ms and used)


def apply(step: Step, reference: Quotas, scripts: QuotaScripts) -> None:
    """Make a step on both sides, and compare the answers."""
    match step:
        case Begin() | Mend():
            correct(step, reference, scripts)
        case Reserve(event, requests, worst, least_share):
            least = round(worst * least_share) or min(worst, 1)
            new = event not in reference.taken
            answer = scripts.reserve(event, requests, worst, least)
            check(reference.reserve(event, requests, worst, least), answer)
            assert not new or not worst or answer[0] != 1 or affordable(reference, scripts)
        case Settle(named, requests, cost):
            event = named or next((each for each, taken in reference.taken.items() if taken), "never")
            assert scripts.settle(event, requests, cost) == reference.settle(event, requests, cost)
        case Withdraw(event):
            assert scripts.withdraw(event) == reference.withdraw(event)
        case Renew(events):
            reference.renew(events)
            scripts.renew(events)
        case Elapse(seconds):
            reference.now_ms += seconds * 1000
            scripts.elapse(seconds * 1000)
        case Lapse():
            reference.now_ms += RESERVATION_MS
            scripts.elapse(RESERVATION_MS)
            for event in list(reference.taken):
                del reference.taken[event]
                scripts.forget(event)


def correct(step: Begin | Mend, reference: Quotas, scripts: QuotaScripts) -> None:
    """Begin or correct budgets on both sides."""
    if isinstance(step, Begin):
        reference.begin(*step)
        scripts.begin(*step)
    else:
        assert scripts.mend(*step) == reference.mend(*step)


def affordable(reference: Quotas, scripts: QuotaScripts) -> bool:
    """Return whether no budget has more spent and reserved than it is."""
    totals = [sum(each or ()) for each in scripts.budgets()]
    return all(total <= term.amount for total, term in zip(totals, reference.terms, strict=True))


def check(expected: tuple[int, ...], answer: list[int]) -> None:
    """Compare the answer to a reservation with what the reference says."""
    code, *rest = answer
    if code == 1:
        assert (code, rest[1]) == expected, "levels, then what was taken"
    elif code == 0:
        assert (code, rest[0]) == expected
    else:
        assert tuple(answer) == expected
