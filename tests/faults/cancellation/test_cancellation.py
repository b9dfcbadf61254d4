"""A request that is cancelled at any place where it may be suspended leaves nothing behind.

The places are read from the code: every `await`, `async for` and `async with` between admission and settlement. Each is
met by a scenario, or is listed here with the reason why nothing is ever suspended there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
import structlog

from gateway.errors import UpstreamTimeout
from tests.faults.cancellation.places import ADMISSION, BEYOND, NEVER_SUSPENDED, PACKAGES
from tests.support.awaits import Where, awaiting, reachable
from tests.support.cancellation import BURST, LARGE, WHOLE_ANSWER, Ended, Scenario, Stand
from tests.support.gateway import SIM_MODEL, write_config
from tests.support.paced_engine import WHOLE, PacedEngine, event, head, pieces
from tests.support.postgres import connected
from tests.support.replica_here import replica_here
from tests.support.source import REPOSITORY
from tests.support.stepping import TOTAL_S, Moment, Plan, Probe, WatchedLoop
from tests.support.tenants import make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.stepping import Spot

STREAM = [event("a"), event("b"), event("c", finish=True), event(usage=True), "data: [DONE]\n\n"]
LONG_STREAM = [event("a" * 60_000), event("b" * 60_000), *STREAM[2:]]
EVENTS = head(content_type="text/event-stream")
ERROR = ['{"error": {"message": "no", ', '"type": "x"}}']
REFUSED, FAILED = [head(400), *pieces(*ERROR)], [head(500), *pieces(*ERROR)]
STREAMED = [EVENTS, *pieces(*STREAM)]
FAILURE = 'data: {"error": {"message": "no", "code": 500}}\n\n'

BETWEEN_KEEP_ALIVES = "asyncio.sleep(every_s)"

SCENARIOS = [
    Scenario("a whole answer", [head(), *pieces(WHOLE[:20], WHOLE[20:40], WHOLE[40:])]),
    Scenario("a whole answer over new connections", WHOLE_ANSWER, cold=True, redis_cold=True),
    Scenario("a whole answer behind one that is not read", WHOLE_ANSWER, unread=True),
    Scenario("a stream", STREAMED, stream=True),
    Scenario("a stream over a new connection", STREAMED, stream=True, cold=True),
    Scenario("a stream with long events", [EVENTS, *pieces(*LONG_STREAM)], stream=True),
    Scenario("a stream of one piece", [EVENTS, *pieces("".join(STREAM))], stream=True),
    Scenario("a stream behind an answer that is not read", STREAMED, stream=True, unread=True),
    Scenario("a stream after keep-alives", STREAMED, stream=True, keep_alive_s=0, begins_after=BETWEEN_KEEP_ALIVES),
    Scenario(
        "a stream after keep-alives that are not read",
        STREAMED,
        stream=True,
        unread=True,
        keep_alive_s=0,
        begins_after=BETWEEN_KEEP_ALIVES,
    ),
    Scenario("a busy engine, then another", [head(429, retry_after="0"), *pieces(*ERROR)], STREAMED, stream=True),
    Scenario("a refused request", REFUSED, status="upstream_error"),
    Scenario("a refused request behind an answer that is not read", REFUSED, status="upstream_error", unread=True),
    Scenario("two engines that fail", FAILED, FAILED, status="upstream_error"),
    Scenario(
        "keep-alives, then two engines that fail",
        FAILED,
        FAILED,
        stream=True,
        status="upstream_error",
        keep_alive_s=0,
        begins_after=BETWEEN_KEEP_ALIVES,
    ),
    Scenario(
        "an engine that breaks off",
        [EVENTS, *pieces(*LONG_STREAM[:2], ended=False)],
        stream=True,
        status="upstream_error",
        breaks_off=True,
    ),
    Scenario(
        "an error with the last event",
        [EVENTS, *pieces(event("a" * 60_000), event("b") + FAILURE)],
        stream=True,
        status="upstream_error",
    ),
    Scenario(
        "an error with the only event", [EVENTS, *pieces(event("a") + FAILURE)], stream=True, status="upstream_error"
    ),
    Scenario(
        "an end in the middle of an event", [EVENTS, *pieces(event("a").rstrip())], stream=True, status="upstream_error"
    ),
]


PATIENCE_MS = 5000
"""A busy machine is no reason to take Redis or Postgres for away."""
SCENARIOS_PER_SPOT = 2
"""A request is cancelled at the same spot in so many scenarios: more would show nothing else."""


TRIES_MAX = 5
"""For what else goes on beside a request: it may have made a new connection before the request needed it, say."""


ROOTS = awaiting(PACKAGES, ADMISSION)
PLACES = reachable(PACKAGES, ROOTS, BEYOND)


@pytest.fixture
async def stand(postgres_dsn: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stand]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WatchedLoop)
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    probe = Probe(Where(PLACES), ROOTS, str(REPOSITORY / "gateway"))
    probe.install(loop)
    tenant = make_tenant(
        postgres_dsn,
        requests_per_minute=1,
        requests_burst=BURST,
        tokens_per_minute=1,
        tokens_burst=BURST,
        concurrent_requests=BURST,
    )
    bystander = make_tenant(postgres_dsn)
    async with (
        PacedEngine() as first,
        PacedEngine() as second,
        PacedEngine() as large,
        connected(postgres_dsn) as connection,
        redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as store,
    ):
        for engine in (first, second, large):
            engine.answer = WHOLE_ANSWER
        common = {"health": {"path": None}, "timeouts": {"total_s": TOTAL_S}}
        config = write_config(
            tmp_path / "penstock.yaml",
            [first.url, second.url],
            pool=common,
            pools={"big": {"engine": "vllm", "endpoints": [large.url], **common}},
            models={"sim": SIM_MODEL | {"limits": {"requests_per_minute": BURST}}, LARGE: {"pool": "big"}},
        )
        async with replica_here(
            config, postgres_dsn, redis_url, redis_timeout_ms=PATIENCE_MS, ledger_open_hold_ms=PATIENCE_MS
        ) as replica:
            with structlog.testing.capture_logs() as log:
                stand = Stand(
                    replica,
                    [first, second, large],
                    probe,
                    tenant,
                    bystander,
                    connection,
                    store,
                    faults,
                    log,
                    loop.expiries,
                )
                await stand.further_request()
                stand.write_late()
                yield stand


WAYS = {"hang-up": Stand.hang_up, "time-out": Stand.time_out, "shutdown": Stand.shut_down}
TWICE = [("hang-up", "shutdown"), ("time-out", "hang-up"), ("time-out", "shutdown"), ("shutdown", "hang-up")]
STATUS = {"hang-up": "client_closed", "time-out": "upstream_error", "shutdown": "interrupted"}


def test_what_is_never_suspended_is_still_there() -> None:
    assert set(NEVER_SUSPENDED) <= {str(place) for place in PLACES}
    assert ROOTS, f"nothing awaits '{ADMISSION}' any more: where does a request begin to hold something?"


async def test_a_request_cancelled_anywhere_leaves_nothing(stand: Stand) -> None:
    met: dict[str, set[str]] = {way: set() for way in WAYS}
    suspended: set[str] = set()
    spots: Counter[Spot] = Counter()
    expected = {str(place) for place in PLACES} - set(NEVER_SUSPENDED)
    for _, scenario in rounds(lambda: all(places == expected for places in (suspended, *met.values()))):
        for spot in await normally(stand, scenario, suspended):
            spots[spot] += 1
            missed = [way for way in WAYS if not {place for place, _ in spot} <= met[way]]
            for way, moment in product(WAYS if spots[spot] <= SCENARIOS_PER_SPOT else missed, Moment):
                plan = Plan(spot, moment, partial(WAYS[way], stand))
                ended = await cancelled(stand, scenario, plan, {STATUS[way]})
                met[way] |= {str(place) for place in ended.seen.hit}
                assert way != "time-out" or is_told_of_the_time(ended), (scenario.name, ended)
    assert suspended == expected
    assert met == dict.fromkeys(WAYS, suspended)


async def test_a_request_cancelled_again_while_that_is_handled_leaves_nothing(stand: Stand) -> None:
    stops = "edge/sink.py AsgiSink.stop_keep_alive: await asyncio.wait((keep_alive,))"
    again: dict[str, set[str]] = {way: set() for way, _ in TWICE}
    spots: set[tuple[int, Spot]] = set()

    def waited_for() -> bool:
        return all(stops in places for places in again.values())

    def told_of() -> bool:
        return any("Completions._report" in place for place in again["time-out"])

    for number, scenario in rounds(lambda: waited_for() and told_of()):
        for spot in await normally(stand, scenario, set()):
            for ways in TWICE if (number, spot) not in spots else ():
                again[ways[0]] |= await cancelled_twice(stand, scenario, spot, ways)
            spots.add((number, spot))
    assert waited_for(), "the second one never came while that was waited for"
    assert told_of(), "nor while the first was told of"


def rounds(complete: Callable[[], bool]) -> Iterator[tuple[int, Scenario]]:
    """Yield the scenarios and the round's number; again, up to TRIES_MAX rounds, until all that must be met was met."""
    for number in range(TRIES_MAX):
        for scenario in SCENARIOS:
            yield number, scenario
        if complete():
            return


async def cancelled_twice(stand: Stand, scenario: Scenario, spot: Spot, ways: tuple[str, str]) -> set[str]:
    """Cancel it in one way and in the other while that is handled, then both at once; return where the second came."""
    first, second = (partial(WAYS[way], stand) for way in ways)
    statuses = {STATUS[way] for way in ways}
    ended = await cancelled(stand, scenario, Plan(spot, Moment.AT_ONCE, first, second), statuses)
    await cancelled(stand, scenario, Plan(spot, Moment.ANSWERED, one_after_the_other(first, second)), statuses)
    return {str(place) for place in ended.seen.again}


def one_after_the_other(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Return both at the same moment."""

    def both() -> None:
        first()
        second()

    return both


def is_told_of_the_time(ended: Ended) -> bool:
    """Whether its client hears of it, in a proper error or an event; a whole answer that has begun is cut instead."""
    hit = [str(place) for place in ended.seen.hit]
    if not any(ADMISSION in place or "stages.relay.run(" in place for place in hit):
        return True  # it was cancelled from beside, or after its end
    if any("AsgiSink.answer: await self._send({'type': 'http.response.body'" in place for place in hit):
        return UpstreamTimeout.code.encode() not in ended.answer
    return UpstreamTimeout.code.encode() in ended.answer and b"Internal Server Error" not in ended.answer


async def normally(stand: Stand, scenario: Scenario, suspended: set[str]) -> list[Spot]:
    """Let a request go its way, and return where it was suspended; the places are added to `suspended`."""
    spots: dict[Spot, int] = {}
    for _ in range(TRIES_MAX if scenario.redis_cold else 1):
        ended = await stand.run(scenario, Plan(None, Moment.AT_ONCE, stand.shut_down))
        assert ended.row is not None
        assert ended.row["status"] == scenario.status
        suspended |= {str(place) for place in ended.seen.places}
        spots |= ended.seen.spots
    return list(spots)


async def cancelled(stand: Stand, scenario: Scenario, plan: Plan, statuses: set[str]) -> Ended:
    """Let a request be cancelled as planned and assert how it ended; `statuses` are those of the ways."""
    ended = await tried(stand, scenario, plan, statuses)
    for _ in range(TRIES_MAX - 1):
        if ended.seen.hit or plan.moment is not Moment.AT_ONCE:
            break
        ended = await tried(stand, scenario, plan, statuses)
    return ended


async def tried(stand: Stand, scenario: Scenario, plan: Plan, statuses: set[str]) -> Ended:
    """Do that once: it may not come to the place where the request is to be cancelled."""
    try:
        ended = await stand.run(scenario, plan)
        hit = [str(place) for place in ended.seen.hit]
        status = ended.row and ended.row["status"]
        if any(ADMISSION in place for place in hit):
            assert status is None
        elif any("stages.relay.run(" in place for place in hit):
            assert status in statuses
        elif hit:  # in what goes on beside it, or when it is settled
            assert status in {scenario.status, None} | statuses
        else:
            assert status == scenario.status
        await stand.further_request()
    except (AssertionError, TimeoutError) as failure:
        failure.add_note(f"{scenario.name}, cancelled {plan.moment.value} in {plan.spot}")
        raise
    return ended
