"""Which buckets a request must pass: one for each limit that applies, keyed so that replicas and slots agree."""

from __future__ import annotations

import msgspec

from gateway.admit.bucket import UsageVector
from gateway.admit.policy import applicable, limit_set
from gateway.domain.config import TokenWeights
from gateway.domain.principal import Level, LimitUnit
from tests.support.limits import limit, model, principal, requests, tokens


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
    assert applicable(principal(requests(1)), model())[1:] == (None, None, None, None)


def test_the_tightest_token_bucket_is_the_smallest() -> None:
    assert applicable(principal(tokens(10, burst=500), tokens(1_000)), model()).token_capacity == 500


def test_a_limit_is_named_for_people() -> None:
    assert limit(LimitUnit.TOKENS, 1, level=Level.TEAM).name == "team tokens per minute"
    assert limit(LimitUnit.REQUESTS, 1, model="m").name == "key requests per minute for m"
