"""Which engine is next: the least loaded healthy one, another one after a failure, then the fallbacks, in order."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from gateway.domain.attempt import AttemptOutcome
from gateway.errors import NoEngine
from gateway.observe.metrics import Metrics
from gateway.route import engine as engine_module
from gateway.route.engine import FAILURES_TO_EJECT
from gateway.route.router import ATTEMPTS_MAX, RETRY_RESERVE, RETRY_SHARE, Router
from tests.support.clock import Clock
from tests.unit.route.parts import call, config, model, pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.domain.attempt import Attempt
    from gateway.route.engine import Engine

OK, FAILED, BUSY = AttemptOutcome.OK, AttemptOutcome.FAILED, AttemptOutcome.BUSY
STALE = AttemptOutcome.STALE
LOCAL = "http://127.0.0.1:"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still."""
    return Clock.put_into(engine_module, monkeypatch)


@pytest.fixture
async def router(clock: Clock) -> AsyncIterator[Router]:
    """A router without a configuration yet, whose engines go by `clock`."""
    del clock
    router = Router(Metrics())
    yield router
    await router.close()


def engines(router: Router, name: str = "p") -> list[Engine]:
    """Return the engines of a pool."""
    return router._pools[name].engines


async def first(router: Router, *pools: str) -> Attempt:
    """Begin a call and return its first attempt."""
    return await anext(router.attempts(call(model("m", *(pools or ("p",))))))


async def served_by(router: Router, *pools: str, outcome: AttemptOutcome = OK, pause_s: float | None = None) -> str:
    """Serve a call with its first attempt and return the engine's port."""
    attempt = await first(router, *pools)
    attempt.finish(outcome, retry_after_s=pause_s)
    return attempt.engine.removeprefix(LOCAL)


async def tried(router: Router, *pools: str, outcome: AttemptOutcome = FAILED) -> list[str]:
    """Let every attempt of a call end the same way; return the engines' ports."""
    ports = []
    async for attempt in router.attempts(call(model("m", *(pools or ("p",))))):
        ports.append(attempt.engine.removeprefix(LOCAL))
        attempt.finish(outcome)
    return ports


async def test_an_attempt_is_what_the_relay_needs(router: Router) -> None:
    router.configure(config(pool("p", 1)))
    attempt = await first(router)
    (engine,) = engines(router)
    assert (attempt.pool, attempt.engine, attempt.upstream_model) == ("p", LOCAL + "1", "upstream-m")
    assert attempt.connection is engine.connection
    assert attempt.headers.endswith(b"\r\n")
    assert engine.in_flight == 1
    attempt.finish(OK)
    attempt.finish(FAILED)
    assert engine.in_flight == 0, "only the first end counts"


async def test_equals_take_turns(router: Router) -> None:
    router.configure(config(pool("p", 1, 2, 3)))
    assert Counter([await served_by(router) for _ in range(30)]) == {"1": 10, "2": 10, "3": 10}


async def test_the_least_loaded_is_next(router: Router) -> None:
    router.configure(config(pool("p", 1, 2, 3)))
    running = [await first(router) for _ in range(10)]
    assert sorted(engine.in_flight for engine in engines(router)) == [3, 3, 4]
    freed = running[5]
    freed.finish(OK)
    (await first(router)).finish(OK)
    loads = {engine.endpoint: engine.in_flight for engine in engines(router)}
    assert min(loads.values()) in (2, 3)
    assert (await first(router)).engine == min(loads, key=lambda endpoint: loads[endpoint])


async def test_after_a_failure_another_engine_is_tried_once(router: Router) -> None:
    router.configure(config(pool("p", 1, 2, 3)))
    for _ in range(3):
        ports = await tried(router)
        assert len(set(ports)) == len(ports) == ATTEMPTS_MAX
    router.configure(config(pool("alone", 1)))
    assert await tried(router, "alone") == ["1"]


async def test_an_engine_whose_kept_connection_had_ended_is_tried_again_when_there_is_no_other(router: Router) -> None:
    router.configure(config(pool("p", 1, 2), pool("alone", 3)))
    for _ in range(6):
        assert len(set(await tried(router, outcome=STALE))) == ATTEMPTS_MAX, "another one is the better choice"
    for _ in range(6):
        assert await tried(router, "alone", outcome=STALE) == ["3"] * ATTEMPTS_MAX
    assert not any(engine.ejected for engine in engines(router, "alone"))


async def test_retries_are_a_share_of_calls_and_a_reserve(router: Router) -> None:
    """A failing pool is not hit twice as hard, and a call that has nobody left to ask spends nothing."""
    router.configure(config(pool("p", 1, 2), pool("alone", 3)))
    calls = 200
    attempts = sum([len(await tried(router)) for _ in range(calls)])
    assert attempts - calls == int(RETRY_RESERVE + calls * RETRY_SHARE) - 1
    for _ in range(100):
        await tried(router, "alone")
    assert router._pools["alone"].retries._saved == RETRY_RESERVE


async def test_engines_that_are_down_or_ejected_are_left_alone(router: Router, clock: Clock) -> None:
    router.configure(config(pool("p", 1, 2, 3, 4)))
    for _ in range(FAILURES_TO_EJECT):
        engines(router)[0].begin()
        engines(router)[0].end(FAILED, may_eject=True, retry_after_s=None)
    engines(router)[1].probed(healthy=False)
    assert engines(router)[0].ejected
    assert {await served_by(router) for _ in range(10)} == {"3", "4"}
    engines(router)[1].probed(healthy=True)
    clock.now_s += 1_000
    assert {await served_by(router) for _ in range(10)} == {"1", "2", "3", "4"}


async def test_never_more_than_half_of_a_pool_is_ejected(router: Router) -> None:
    for size in (1, 2, 3, 5):
        router.configure(config(pool(f"pool-{size}", *range(1, size + 1))))
        for _ in range(40 * size):
            await tried(router, f"pool-{size}")
        assert sum(engine.ejected for engine in engines(router, f"pool-{size}")) == size // 2


async def test_when_none_is_healthy_all_are_tried(router: Router) -> None:
    router.configure(config(pool("p", 1, 2)))
    for engine in engines(router):
        engine.probed(healthy=False)
    assert set(await tried(router)) == {"1", "2"}


async def test_an_engine_that_asked_for_a_pause_comes_last(router: Router, clock: Clock) -> None:
    router.configure(config(pool("p", 1, 2)))
    paused = await served_by(router, outcome=BUSY, pause_s=5.0)
    other = {"1": "2", "2": "1"}[paused]
    assert {await served_by(router) for _ in range(5)} == {other}
    await served_by(router, outcome=BUSY, pause_s=60.0)
    assert {await served_by(router) for _ in range(5)} == {"1", "2"}, "when all did, they are asked again"
    clock.now_s += 6
    assert {await served_by(router) for _ in range(5)} == {paused}


async def test_a_full_pool_says_so(router: Router) -> None:
    router.configure(config(pool("p", 1, 2, concurrency=2)))
    running = [await first(router) for _ in range(4)]
    with pytest.raises(NoEngine) as refused:
        await first(router)
    assert refused.value.retry_after_s == 1.0
    down = next(engine for engine in engines(router) if engine.endpoint == running[0].engine)
    down.probed(healthy=False)
    running[0].finish(OK)
    with pytest.raises(NoEngine):
        await first(router)
    down.probed(healthy=True)
    assert (await first(router)).engine == down.endpoint, "room on an engine that is down is none"


@pytest.mark.parametrize("trouble", ["full", "down", "one down, one full"])
async def test_a_fallback_serves_when_the_pool_cannot(router: Router, trouble: str) -> None:
    router.configure(config(pool("p", 1, 2, concurrency=1), pool("spare", 8, 9), pool("last", 10)))
    one, other = engines(router)
    one.probed(healthy=trouble == "full")
    other.probed(healthy=trouble != "down")
    for engine in (one, other):
        if engine.up:
            engine.begin()
    assert {await served_by(router, "p", "spare", "last") for _ in range(4)} == {"8", "9"}
    for engine in engines(router, "spare"):
        engine.probed(healthy=False)
    assert await served_by(router, "p", "spare", "last") == "10"


async def test_a_fallback_serves_after_the_pools_only_engine_failed(router: Router) -> None:
    router.configure(config(pool("p", 1), pool("spare", 8)))
    assert await tried(router, "p", "spare") == ["1", "8"]


async def test_a_pool_that_a_changed_file_took_away_is_no_fault_of_the_caller(router: Router) -> None:
    """The call was read under the configuration before."""
    router.configure(config(pool("p", 1), pool("spare", 8)))
    router.configure(config(pool("spare", 8)))
    assert await served_by(router, "p", "spare") == "8"
    with pytest.raises(NoEngine):
        await first(router, "p")


async def test_a_changed_file_keeps_the_engines_that_it_still_names(router: Router) -> None:
    router.configure(config(pool("p", 1, 2)))
    kept, dropped = engines(router)
    running = await first(router)
    dropped_connection = dropped.connection
    router.configure(config(pool("p", 1, 2), pool("q", 3)))
    assert engines(router) == [kept, dropped], "with load and health as they were"
    router.configure(config(pool("q", 3)))
    router.configure(config(pool("p", 1, 2)))
    assert kept not in engines(router)
    running.finish(OK)
    await router.close()
    assert "idle=0" in repr(dropped_connection)


async def test_a_changed_pool_has_new_engines(router: Router) -> None:
    """A credential or a timeout that changed holds from the next request on."""
    router.configure(config(pool("p", 1)))
    (old,) = engines(router)
    router.configure(config(pool("p", 1, concurrency=7)))
    (new,) = engines(router)
    assert new is not old
    assert (await first(router)).connection is new.connection
    await asyncio.sleep(0)
    assert old.connection._retired  # type: ignore[attr-defined] # what an HttpUpstream has


async def test_what_is_no_longer_configured_is_no_longer_measured() -> None:
    metrics = Metrics()
    router = Router(metrics)
    router.configure(config(pool("p", 1, 2)))
    router.configure(config(pool("p", 2)))
    sample = metrics.registry.get_sample_value
    assert sample("penstock_engine_up", {"pool": "p", "engine": LOCAL + "1"}) is None
    assert sample("penstock_engine_up", {"pool": "p", "engine": LOCAL + "2"}) == 1
    await router.close()
