"""Admission under limits of input tokens alone, of output tokens alone, and of a model over all tenants."""

from __future__ import annotations

import pytest

from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.claim import Answer, Claim, Exceeded, Unknown
from gateway.admit.reservation import NO_COST
from gateway.domain.config import ModelLimits, TokenWeights
from gateway.domain.principal import LimitUnit
from gateway.domain.usage import NO_USAGE
from gateway.errors import BudgetExceeded, BudgetUnknown, LimiterUnavailable, LimitExceeded, RequestExceedsLimit
from tests.support.limits import budget, limit, model, principal, requests, tokens
from tests.unit.admit.scripted import Store, call, make_desk

INPUT, OUTPUT = LimitUnit.INPUT_TOKENS, LimitUnit.OUTPUT_TOKENS


async def test_a_prompt_that_an_input_limit_can_never_hold_is_too_large() -> None:
    desk = make_desk()
    with pytest.raises(RequestExceedsLimit, match="input token limit of 99 can ever hold"):
        await desk.admitter.admit(principal(limit(INPUT, 99), limit(OUTPUT, 1)), call(model()))
    assert desk.decisions("too_large") == 1
    await desk.admitter.admit(principal(limit(INPUT, 100)), call(model()))
    assert desk.store.reserved == [UsageVector(1, 100, 0, 100)]


@pytest.mark.parametrize(("capacity", "weight", "completion"), [(60, 1.0, 60), (60, 2.0, 30), (500, 1.0, 100)])
async def test_an_output_limit_cuts_the_completion_and_no_prompt(capacity: int, weight: float, completion: int) -> None:
    desk = make_desk()
    asked = model(weights=TokenWeights(output=weight))
    await desk.admitter.admit(principal(limit(OUTPUT, capacity)), call(asked))
    assert desk.store.reserved == [UsageVector(1, 100, 0, completion)]


async def test_headers_tell_of_each_unit_that_has_a_limit() -> None:
    desk = make_desk()
    desk.store.answer = [10, 20, 30, 40]
    caller = principal(requests(60), tokens(600), limit(INPUT, 6_000), limit(OUTPUT, 60_000))
    reservation = await desk.admitter.admit(caller, call(model()))
    told = dict(reservation.headers())
    assert told[b"x-ratelimit-limit-input-tokens"] == b"6000"
    assert told[b"x-ratelimit-remaining-output-tokens"] == b"40"
    assert len(told) == 12
    desk.store.answer = None
    plain = await desk.admitter.admit(principal(tokens(600)), call(model()))
    assert len(plain.headers()) == 3


async def test_a_models_own_limit_is_a_second_question_and_only_where_there_is_one() -> None:
    desk = make_desk()
    caller, asked = principal(requests(60)), model(limits=ModelLimits(tokens_per_minute=150))
    reservation = await desk.admitter.admit(caller, call(asked))
    assert [claim.limits.tag for claim in desk.store.claims] == [caller.organization_id.hex, "model:m"]
    assert desk.store.reserved == [UsageVector(1, 100, 0, 50)] * 2, "cut to what the model's own bucket can hold"
    assert len(reservation.headers()) == 3, "what others use is nobody's business"
    reservation.settle(NO_USAGE, NO_COST)
    assert desk.store.settled == [(reservation.event_id.hex, UsageVector(1, 0, 0, 0))] * 2
    await desk.admitter.admit(caller, call(model()))
    assert len(desk.store.claims) == 3
    await desk.admitter.admit(principal(), call(asked))
    assert [claim.limits.tag for claim in desk.store.claims][3:] == ["model:m"]


@pytest.mark.parametrize("how", ["refused", "away"])
async def test_what_the_second_question_refuses_is_given_back_of_the_first(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    desk = make_desk("deny")
    first_only = Store.reserve

    async def reserve(self: Store, claim: Claim) -> Answer:
        if claim.limits.tag != "model:m":
            return await first_only(self, claim)
        if how == "away":
            raise LimiterUnavailable("its node is away")
        return Refusal(0, 1_500, (-7,))

    monkeypatch.setattr(Store, "reserve", reserve)
    asked = call(model(limits=ModelLimits(requests_per_minute=1)))
    desk.store.answer = [41]
    with pytest.raises(LimitExceeded if how == "refused" else LimiterUnavailable) as refused:
        await desk.admitter.admit(principal(requests(60)), asked)
    if how == "refused":
        told = dict(refused.value.headers)
        assert told[b"x-ratelimit-remaining-requests"] == b"42", "the tenant's own, given back; of the model's nothing"
    assert desk.store.settled == [(asked.event_id.hex, NOTHING)]
    assert desk.store.costs == [0]


async def test_a_budget_that_stays_unknown_is_said_after_a_few_rounds() -> None:
    desk = make_desk()
    desk.store.answer = Unknown([0])
    with pytest.raises(BudgetUnknown):
        await desk.admitter.admit(principal(budget(1)), call(model()))
    assert 2 <= len(desk.store.claims) <= 5
    assert desk.decisions("budget_unknown") == 1


async def test_a_spent_budget_is_named_and_its_amount_is_not() -> None:
    """Clients retry on numbers such as 500, whatever the status."""
    desk = make_desk()
    desk.store.answer = Exceeded(0)
    with pytest.raises(BudgetExceeded, match=r"^the key budget per day is used up, or too little is left"):
        await desk.admitter.admit(principal(budget(500)), call(model()))
