"""The most that a request may cost: what budgets hold for it, and how much of an answer an allowance pays for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec
import pytest

from gateway.admit.estimate import Estimate
from gateway.admit.worst_cost import OUTPUT_SAFETY, worst_cost
from gateway.domain.call import Call, Endpoint
from gateway.domain.config import ModelConfig, Price
from gateway.units import PicoUsd, new_event_id

MODEL = ModelConfig(name="m", pool="p", upstream="u", context_tokens=100_000, output_tokens=50_000)


@dataclass(frozen=True)
class _InForce:
    price: Price


PRICE = _InForce(Price(PicoUsd(2), PicoUsd(3), PicoUsd(10), PicoUsd(7), PicoUsd(1000)))
EXPECTED = Estimate(prompt_tokens=100, completion_tokens=50, prompt_bytes=400)
FIXED = 1000 + 150 * 3


def call(endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, *, choices: int = 1, max_tokens: int | None = None) -> Call:
    """Return a call for MODEL."""
    return Call(
        event_id=new_event_id(),
        endpoint=endpoint,
        requested_model="m",
        model=MODEL,
        fields={} if max_tokens is None else {"max_tokens": msgspec.Raw(b"%d" % max_tokens)},
        body=b"",
        stream=True,
        usage_wanted=False,
        output_max=MODEL.output_tokens if max_tokens is None else max_tokens,
        choices=choices,
        session=None,
        started_s=0.0,
    )


def test_what_the_request_bounds_is_held_whole_at_the_dearer_rates() -> None:
    assert worst_cost(call(max_tokens=4000), EXPECTED, PRICE) == (FIXED + 4000 * 10, FIXED + 10, 10)
    assert worst_cost(call(max_tokens=4000, choices=3), EXPECTED, PRICE).most == FIXED + 3 * 4000 * 10


def test_what_nobody_bounds_is_held_as_several_times_what_is_expected() -> None:
    """The model's own bound would let a small budget pay for nothing."""
    assert worst_cost(call(), EXPECTED, PRICE).most == FIXED + OUTPUT_SAFETY * 50 * 10


def test_no_more_is_held_than_the_model_and_its_context_allow() -> None:
    assert worst_cost(call(max_tokens=99_999), Estimate(99_990, 50, 0), PRICE).most == 1000 + 100_000 * 3 + 10 * 10
    long = EXPECTED._replace(completion_tokens=20_000)
    assert worst_cost(call(), long, PRICE).most == FIXED + 50_000 * 10


def test_a_bound_that_counts_elsewhere_bounds_nothing_here() -> None:
    asked = call()
    asked.output_max = None
    asked.fields["n_predict"] = msgspec.Raw(b"7")
    unbounded = replace(MODEL, context_tokens=None, output_tokens=None)
    asked.model = unbounded
    assert worst_cost(asked, EXPECTED, PRICE).most == FIXED + OUTPUT_SAFETY * 50 * 10


def test_nothing_costs_nothing() -> None:
    assert worst_cost(call(), EXPECTED, None) == (0, 0, 0)
    assert worst_cost(call(Endpoint.COUNT_TOKENS), EXPECTED, PRICE) == (0, 0, 0)
    embedding = EXPECTED._replace(completion_tokens=0)
    assert worst_cost(call(Endpoint.EMBEDDINGS), embedding, PRICE) == (FIXED, FIXED, 10)


@pytest.mark.parametrize(("left", "tokens"), [(0, 1), (9, 1), (10, 2), (990, 100)])
def test_an_allowance_pays_for_the_prompt_and_so_many_tokens(left: int, tokens: int) -> None:
    worst = worst_cost(call(max_tokens=4000), EXPECTED, PRICE)
    assert worst.tokens(PicoUsd(worst.least + left)) == tokens


def test_what_is_free_may_be_as_long_as_it_likes() -> None:
    assert worst_cost(call(), EXPECTED, None).tokens(PicoUsd(0)) == math.inf
