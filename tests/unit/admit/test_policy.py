"""Which buckets a request must pass: one for each limit that applies, keyed so that replicas and slots agree."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import msgspec
import pytest

from gateway.admit.bucket import UsageVector
from gateway.admit.policy import applicable, deployment_set, limit_set
from gateway.domain.config import ModelLimits, TokenWeights
from gateway.domain.principal import BudgetPeriod, Level, LimitUnit
from gateway.units import PicoUsd
from tests.support.limits import budget, limit, model, places, principal, requests, tokens


def test_every_limit_that_applies_is_a_bucket_in_its_order() -> None:
    limits = (
        requests(600, level=Level.ORGANIZATION),
        tokens(6_000, burst=9_000, level=Level.TEAM, model="m"),
        tokens(6_000, level=Level.USER, model="other"),
    )
    caller = principal(*limits)
    found = limit_set(caller, model("m"))
    assert found.limits == limits[:2]
    assert [(bucket.capacity, bucket.refill_per_s) for bucket in found.buckets] == [(600, 10), (9_000, 100)]
    assert applicable(caller, model("m")).token_capacity == 9_000
    tag = caller.organization_id.hex
    assert found.keys == (
        f"pst:{{{tag}}}:b:{limits[0].subject_id.hex}:requests:",
        f"pst:{{{tag}}}:b:{limits[1].subject_id.hex}:tokens:m",
    )
    assert found.reservation_key("e") == f"pst:{{{tag}}}:r:e"
    assert msgspec.json.decode(found.spec_json) == [[600, 10, 1, 0, 0, 0], [9_000, 100, 0, 1, 1, 1]]


def test_a_model_weighs_tokens_and_never_requests() -> None:
    weights = TokenWeights(input=1.0, cached_input=0.1, output=2.0)
    found = limit_set(principal(requests(10), tokens(10)), model(weights=weights))
    usage = UsageVector(1, 100, 10, 50)
    assert [bucket.cost(usage) for bucket in found.buckets] == [1, 201]


def test_without_limits_there_is_nothing_to_ask() -> None:
    found = limit_set(principal(), model())
    assert (found.keys, found.limits, bool(found)) == ((), (), False)
    assert applicable(principal(requests(1)), model())[1:] == (None, None, None, None, None)


def test_the_tightest_token_bucket_is_the_smallest() -> None:
    assert applicable(principal(tokens(10, burst=500), tokens(1_000)), model()).token_capacity == 500


def test_a_limit_is_named_for_people() -> None:
    assert limit(LimitUnit.TOKENS, 1, level=Level.TEAM).name == "team tokens per minute"
    assert limit(LimitUnit.REQUESTS, 1, model="m").name == "key requests per minute for m"


def test_no_key_has_the_numbers_of_a_limit_in_it() -> None:
    caller = principal(tokens(10), places(3), budget(1))
    changed = replace(
        caller,
        limits=(replace(caller.limits[0], per_minute=99, burst=77),),
        concurrency_limits=(replace(caller.concurrency_limits[0], requests=55),),
        budgets=(replace(caller.budgets[0], amount=PicoUsd(33), stops_streams=True),),
    )
    before, after = limit_set(caller, model()), limit_set(changed, model())
    assert before.fixed_keys == after.fixed_keys
    assert before.period_keys(0).redis == after.period_keys(0).redis
    assert before.terms_json != after.terms_json


def test_input_and_output_are_weighed_alone() -> None:
    weights = TokenWeights(input=1.0, cached_input=0.5, output=2.0)
    limits = [limit(unit, 1_000) for unit in LimitUnit]
    found = limit_set(principal(*limits), model(weights=weights))
    assert [bucket.cost(UsageVector(1, 100, 10, 50)) for bucket in found.buckets] == [1, 205, 105, 100]


def test_what_is_narrowed_to_another_model_does_not_apply() -> None:
    caller = principal(places(1, model="other"), places(2), replace(budget(1), model="other"))
    found = limit_set(caller, model("m"))
    assert [limit.requests for limit in found.concurrency] == [2]
    assert found.budgets == ()
    assert found.key_count == 2


def test_a_models_own_limits_are_keyed_by_the_model() -> None:
    found = deployment_set(model("m", limits=ModelLimits(tokens_per_minute=60, tokens_burst=90, concurrent_requests=4)))
    assert found is not None
    assert found.fixed_keys == (f"pst:{{model:m}}:b:{'0' * 32}:tokens:m", f"pst:{{model:m}}:l:{'0' * 32}:m")
    assert [found.name(index) for index in (0, 1)] == [
        "deployment tokens per minute for m",
        "deployment concurrent requests for m",
    ]
    assert (found.buckets[0].capacity, found.buckets[0].refill_per_s) == (90, 1)
    assert deployment_set(model()) is None


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (BudgetPeriod.DAY, "2024-02-29", "2024-03-01"),
        (BudgetPeriod.WEEK, "2024-02-26", "2024-03-04"),
        (BudgetPeriod.MONTH, "2024-02-01", "2024-03-01"),
    ],
)
def test_a_budget_has_keys_for_each_period(period: BudgetPeriod, start: str, end: str) -> None:
    caller = principal(budget(1, period=period, level=Level.TEAM))
    found = limit_set(caller, model())
    day = dt.datetime(2024, 2, 29, 23, 59, tzinfo=dt.UTC)
    keys = found.period_keys(int(day.timestamp() * 1000))
    (asked,) = keys.sums
    assert (asked.period_start.isoformat(), asked.period_end.isoformat()) == (
        f"{start}T00:00:00+00:00",
        f"{end}T00:00:00+00:00",
    )
    suffix = f"{caller.budgets[0].subject_id.hex}:{period}:{start.replace('-', '')}:"
    tag = caller.organization_id.hex
    assert keys.redis == (f"pst:{{{tag}}}:s:{suffix}", f"pst:{{{tag}}}:h:{suffix}")
    after = found.period_keys(int(asked.period_end.timestamp() * 1000))
    assert after.sums[0].period_start == asked.period_end
    assert found.period_keys(int(day.timestamp() * 1000)) == keys, "also for one that comes later"
