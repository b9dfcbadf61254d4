"""Admission: what is reserved, what a refusal says, and which policy decides while Redis is away."""

from __future__ import annotations

import pytest

from gateway.admit import admitter as admitter_module
from gateway.admit import local
from gateway.admit.admitter import RETRY_AFTER_S_MAX
from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.reservation import NO_COST
from gateway.domain.call import Endpoint
from gateway.domain.config import TokenWeights
from gateway.domain.usage import TokenUsage
from gateway.errors import LimiterUnavailable, LimitExceeded, RequestExceedsLimit
from tests.support.clock import Clock
from tests.support.limits import model, principal, requests, tokens
from tests.unit.admit.scripted import call, make_desk

AWAY = LimiterUnavailable("Redis does not answer")


async def test_what_is_expected_is_reserved_and_what_was_used_is_settled() -> None:
    desk = make_desk()
    request = call(model(), choices=3)
    reservation = await desk.admitter.admit(principal(tokens(10_000)), request)
    assert desk.store.reserved == [UsageVector(1, 100, 0, 300)]
    reservation.settle(TokenUsage(prompt=90, cached=30, completion=7), NO_COST)
    assert desk.store.settled == [(request.event_id.hex, UsageVector(1, 60, 30, 7))]
    with pytest.raises(AssertionError):
        reservation.settle(TokenUsage(), NO_COST)


async def test_what_was_never_served_is_given_back() -> None:
    desk = make_desk()
    request = call(model())
    (await desk.admitter.admit(principal(requests(1)), request)).withdraw()
    assert desk.store.settled == [(request.event_id.hex, NOTHING)]


async def test_without_limits_nobody_is_asked() -> None:
    desk = make_desk("deny")
    desk.store.available = False
    reservation = await desk.admitter.admit(principal(), call(model()))
    assert reservation.headers() == []
    reservation.settle(TokenUsage(prompt=1), NO_COST)
    assert (desk.store.reserved, desk.store.settled) == ([], [])
    assert desk.decisions("unlimited") == 1


async def test_a_refusal_names_the_limit_and_says_when() -> None:
    desk = make_desk()
    desk.store.answer = Refusal(index=1, wait_ms=1_500)
    with pytest.raises(LimitExceeded, match=r"'key tokens per minute' of 600 ") as refused:
        await desk.admitter.admit(principal(requests(60), tokens(600)), call(model()))
    assert refused.value.retry_after_s == 1.5
    desk.store.answer = Refusal(index=0, wait_ms=10**9)
    with pytest.raises(LimitExceeded) as refused:
        await desk.admitter.admit(principal(requests(60)), call(model()))
    assert refused.value.retry_after_s == RETRY_AFTER_S_MAX
    assert desk.decisions("refused") == 2


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [(Endpoint.CHAT_COMPLETIONS, "messages"), (Endpoint.COMPLETIONS, "prompt"), (Endpoint.EMBEDDINGS, "input")],
)
async def test_a_prompt_that_can_never_fit_is_too_large(endpoint: Endpoint, field: str) -> None:
    desk = make_desk()
    with pytest.raises(RequestExceedsLimit, match="shorten") as refused:
        await desk.admitter.admit(principal(tokens(50_000), tokens(99)), call(model(), endpoint=endpoint))
    assert (refused.value.status, refused.value.param) == (413, field)
    assert desk.store.reserved == []
    assert desk.decisions("too_large") == 1


@pytest.mark.parametrize(
    ("capacity", "weights", "reserved"),
    [
        (150, TokenWeights(), UsageVector(1, 100, 0, 50)),
        (100, TokenWeights(), UsageVector(1, 100, 0, 0)),
        (150, TokenWeights(output=2.0), UsageVector(1, 100, 0, 25)),
        (150, TokenWeights(input=0.5, output=4.0), UsageVector(1, 100, 0, 25)),
        (100, TokenWeights(output=0.0), UsageVector(1, 100, 0, 100)),
        (10, TokenWeights(input=0.1, output=0.0), UsageVector(1, 100, 0, 100)),
    ],
)
async def test_what_a_completion_might_need_is_cut_to_what_can_be_had(
    capacity: int, weights: TokenWeights, reserved: UsageVector
) -> None:
    desk = make_desk()
    await desk.admitter.admit(principal(tokens(capacity)), call(model(weights=weights)))
    assert desk.store.reserved == [reserved]


async def test_embeddings_reserve_no_completion() -> None:
    desk = make_desk()
    await desk.admitter.admit(principal(tokens(1_000)), call(model(), endpoint=Endpoint.EMBEDDINGS))
    assert desk.store.reserved == [UsageVector(1, 100, 0, 0)]


async def test_headers_tell_of_the_tightest_bucket_of_each_unit() -> None:
    desk = make_desk()
    desk.store.answer = [59, 20, 5_000, -10]
    limits = principal(requests(60), requests(30), tokens(6_000), tokens(60, burst=50_000))
    reservation = await desk.admitter.admit(limits, call(model()))
    assert dict(reservation.headers()) == {
        b"x-ratelimit-limit-requests": b"30",
        b"x-ratelimit-remaining-requests": b"20",
        b"x-ratelimit-reset-requests": b"20.000s",
        b"x-ratelimit-limit-tokens": b"60",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"50010.000s",
    }


async def test_headers_of_a_unit_without_a_limit_are_left_out() -> None:
    reservation = await make_desk().admitter.admit(principal(requests(60)), call(model()))
    assert all(name.endswith(b"-requests") for name, _ in reservation.headers())


async def test_buckets_are_worked_out_once_for_a_caller_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, caller, asked = make_desk(), principal(requests(60)), model()
    first = desk.admitter._applicable(caller, asked)
    assert desk.admitter._applicable(caller, asked) is first
    assert desk.admitter._applicable(caller, model("other")) is not first
    monkeypatch.setattr(admitter_module, "_APPLICABLE_MAX", 2)
    for _ in range(5):
        desk.admitter._applicable(principal(requests(60)), asked)
    assert len(desk.admitter._known) <= 4
    assert desk.admitter.learning.experience("m") is desk.admitter.learning.experience("m")


@pytest.mark.parametrize("found", ["before", "now"])
async def test_policy_deny_refuses_while_redis_is_away(found: str) -> None:
    desk = make_desk("deny")
    desk.store.available, desk.store.answer = found == "now", AWAY
    with pytest.raises(LimiterUnavailable) as refused:
        await desk.admitter.admit(principal(requests(1)), call(model()))
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1.0)
    assert desk.decisions("denied_redis_away") == 1


@pytest.mark.parametrize("found", ["before", "now"])
async def test_policy_allow_grants_everything_that_can_ever_fit(found: str) -> None:
    desk = make_desk("allow")
    desk.store.available, desk.store.answer = found == "now", AWAY
    for _ in range(100):
        reservation = await desk.admitter.admit(principal(requests(1)), call(model()))
        reservation.settle(TokenUsage(prompt=10**6), NO_COST)
        assert reservation.headers() == []
    assert desk.store.settled == []
    with pytest.raises(RequestExceedsLimit):
        await desk.admitter.admit(principal(tokens(1)), call(model()))


@pytest.mark.parametrize("found", ["before", "now"])
async def test_policy_local_grants_this_replicas_share(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    Clock.put_into(local, monkeypatch)
    desk = make_desk("local", replicas=2)
    desk.store.available, desk.store.answer = found == "now", AWAY
    caller = principal(requests(6), tokens(10_000))
    reservations = [await desk.admitter.admit(caller, call(model())) for _ in range(3)]
    with pytest.raises(LimitExceeded, match="requests per minute"):
        await desk.admitter.admit(caller, call(model()))
    assert dict(reservations[0].headers())[b"x-ratelimit-remaining-requests"] == b"2"
    reservations[0].withdraw()
    await desk.admitter.admit(caller, call(model()))
    assert desk.store.settled == []
    assert desk.decisions("granted_locally") == 4


async def test_the_next_outage_starts_from_what_redis_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.put_into(local, monkeypatch)
    desk, caller = make_desk("local"), principal(requests(10))
    desk.store.available = False
    for _ in range(10):
        await desk.admitter.admit(caller, call(model()))
    desk.store.available, desk.store.answer = True, [2]
    await desk.admitter.admit(caller, call(model()))
    desk.store.available = False
    for _ in range(2):
        await desk.admitter.admit(caller, call(model()))
    with pytest.raises(LimitExceeded):
        await desk.admitter.admit(caller, call(model()))
