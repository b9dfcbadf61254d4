"""One engine's health: failures in a row keep it out for longer and longer, a success forgives, 429 is no failure."""

from __future__ import annotations

import pytest

from gateway.domain.attempt import AttemptOutcome
from gateway.observe.metrics import Metrics
from gateway.route import engine as engine_module
from gateway.route.engine import EJECTION_S, EJECTION_S_MAX, FAILURES_TO_EJECT, Engine
from tests.support.clock import Clock
from tests.unit.route.parts import pool

FAILED, BUSY = AttemptOutcome.FAILED, AttemptOutcome.BUSY


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still."""
    return Clock.put_into(engine_module, monkeypatch)


@pytest.fixture
def engine() -> Engine:
    """An engine with room for two."""
    return Engine(pool("p", 1, concurrency=2), "http://127.0.0.1:1", Metrics())


def ended(engine: Engine, *outcomes: AttemptOutcome, may_eject: bool = True, pause_s: float | None = None) -> None:
    """Let requests on it end in these ways, one after another."""
    for outcome in outcomes:
        engine.begin()
        engine.end(outcome, may_eject=may_eject, retry_after_s=pause_s)


def out(engine: Engine) -> bool:
    """Whether it is kept out now."""
    return engine.ejected


def test_five_failures_in_a_row_keep_it_out(engine: Engine, clock: Clock) -> None:
    ended(engine, *[FAILED] * (FAILURES_TO_EJECT - 1))
    assert not out(engine)
    ended(engine, FAILED)
    assert out(engine)
    clock.now_s += EJECTION_S - 0.001
    assert out(engine)
    clock.now_s += 0.001
    assert not out(engine)
    assert engine.in_flight == 0


@pytest.mark.parametrize("forgives", [AttemptOutcome.OK, AttemptOutcome.REFUSED])
def test_an_answer_in_between_forgives(engine: Engine, clock: Clock, forgives: AttemptOutcome) -> None:
    """Also a refusal: the request was wrong and the engine is fine."""
    ended(engine, *[FAILED] * (FAILURES_TO_EJECT - 1), forgives, *[FAILED] * (FAILURES_TO_EJECT - 1))
    assert not out(engine)
    ended(engine, FAILED)
    assert out(engine)
    clock.now_s += EJECTION_S
    ended(engine, forgives, *[FAILED] * FAILURES_TO_EJECT)
    clock.now_s += EJECTION_S
    assert not out(engine), "forgiven, it is kept out no longer than the first time"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("says_nothing", [AttemptOutcome.ABANDONED, AttemptOutcome.BUSY, AttemptOutcome.STALE])
def test_hang_ups_and_load_are_no_failures(engine: Engine, says_nothing: AttemptOutcome) -> None:
    ended(engine, *[says_nothing] * (3 * FAILURES_TO_EJECT))
    assert not out(engine)
    ended(engine, *[FAILED] * (FAILURES_TO_EJECT - 1), says_nothing, FAILED)
    assert out(engine), "nor do they forgive"


def test_it_is_kept_out_longer_each_time_up_to_a_bound(engine: Engine, clock: Clock) -> None:
    for number in range(1, 15):
        ended(engine, *[FAILED] * FAILURES_TO_EJECT)
        clock.now_s += min(number * EJECTION_S, EJECTION_S_MAX) - 0.001
        assert out(engine)
        clock.now_s += 0.002
        assert not out(engine)


@pytest.mark.usefixtures("clock")
def test_it_is_not_kept_out_while_its_pool_cannot_spare_it(engine: Engine) -> None:
    ended(engine, *[FAILED] * (3 * FAILURES_TO_EJECT), may_eject=False)
    assert not out(engine)
    ended(engine, FAILED)
    assert out(engine)


@pytest.mark.parametrize(("said_s", "pause_s"), [(None, 1.0), (0.5, 0.5), (7.5, 7.5)])
def test_a_pause_that_it_asks_for_is_kept(engine: Engine, clock: Clock, said_s: float | None, pause_s: float) -> None:
    ended(engine, BUSY, pause_s=said_s)
    began_s = clock.now_s
    for elapsed_s in (0.0, pause_s - 0.001, pause_s, pause_s + 1):
        clock.now_s = began_s + elapsed_s
        assert engine.busy == (elapsed_s < pause_s)


def test_it_is_full_at_its_pools_bound(engine: Engine) -> None:
    fullness = []
    for _ in range(3):
        engine.begin()
        fullness.append(engine.full)
    engine.end(AttemptOutcome.OK, may_eject=True, retry_after_s=None)
    engine.end(AttemptOutcome.OK, may_eject=True, retry_after_s=None)
    assert [*fullness, engine.full] == [False, True, True, False]
    unbounded = Engine(pool("p", 1), "http://127.0.0.1:1", Metrics())
    for _ in range(10_000):
        unbounded.begin()
    assert not unbounded.full


def test_its_load_and_health_are_measured() -> None:
    metrics = Metrics()
    engine = Engine(pool("p", 1), "http://127.0.0.1:1", metrics)
    labels = {"pool": "p", "engine": "http://127.0.0.1:1"}
    engine.begin()
    ended(engine, FAILED)
    engine.probed(healthy=False)
    sample = metrics.registry.get_sample_value
    assert sample("penstock_engine_requests_in_flight", labels) == 1
    assert sample("penstock_engine_up", labels) == 0
    assert sample("penstock_engine_attempts_total", labels | {"outcome": "failed"}) == 1
    assert "in_flight=1, up=False" in repr(engine)
