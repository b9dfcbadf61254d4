"""Costs are exact: integer pico-USD equal to what fractions say, for any usage that an engine could report."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.config import Price
from gateway.domain.usage import TokenUsage
from gateway.relay.wire import TOKENS_MAX, CompletionDetails, PromptDetails, WireUsage
from gateway.settings.rates import USD_MAX, per_token
from gateway.settle.price import EffectivePrice, PriceHistory, cost
from gateway.units import PICO_USD_PER_USD, PicoUsd, format_usd, usd

MILLION = 10**6
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

rates = st.integers(0, USD_MAX * PICO_USD_PER_USD // MILLION).map(PicoUsd)
prices = st.builds(Price, rates, rates, rates, rates, rates)
counts = st.one_of(st.none(), st.integers(-(10**30), 10**30), st.integers(0, TOKENS_MAX))
wire_usages = st.builds(
    WireUsage,
    counts,
    counts,
    counts,
    st.one_of(st.none(), st.builds(PromptDetails, counts)),
    st.one_of(st.none(), st.builds(CompletionDetails, counts)),
)
usages = st.tuples(*[st.integers(0, 10**12)] * 2, st.fractions(0, 1), st.fractions(0, 1)).map(
    lambda drawn: TokenUsage(drawn[0], int(drawn[0] * drawn[2]), drawn[1], int(drawn[1] * drawn[3]))
)


@given(wire_usages)
def test_whatever_an_engine_reports_is_a_usage(wire: WireUsage) -> None:
    """Parts never exceed what they are part of, nothing is negative, and a count that was said is not lost."""
    usage = wire.tokens()
    completion = wire.completion_tokens or 0
    prompt = wire.prompt_tokens
    if prompt is None and wire.total_tokens is not None:
        prompt = wire.total_tokens - completion
    if prompt is None or max(prompt, completion) > TOKENS_MAX:
        assert usage is None, "nothing was said, or nothing that can be believed"
        return
    assert usage is not None
    assert (usage.prompt, usage.completion) == (max(prompt, 0), max(completion, 0))
    assert 0 <= usage.cached <= usage.prompt
    assert 0 <= usage.reasoning <= usage.completion
    assert usage.uncached + usage.cached == usage.prompt


@given(prices, usages)
def test_a_cost_is_exact_and_never_negative(price: Price, usage: TokenUsage) -> None:
    exact = (
        Fraction(usage.prompt - usage.cached) * price.input_pico_usd
        + Fraction(usage.cached) * price.cached_input_pico_usd
        + Fraction(usage.completion - usage.reasoning) * price.output_pico_usd
        + Fraction(usage.reasoning) * price.reasoning_pico_usd
        + price.request_pico_usd
    )
    amount = cost(price, usage)
    assert isinstance(amount, int)
    assert amount == exact
    assert amount >= price.request_pico_usd >= 0


@given(prices, usages, usages)
def test_costs_add_up(price: Price, one: TokenUsage, other: TokenUsage) -> None:
    """Two requests cost what one of their sum does, but for the price of a request."""
    both = TokenUsage(
        one.prompt + other.prompt,
        one.cached + other.cached,
        one.completion + other.completion,
        one.reasoning + other.reasoning,
    )
    assert cost(price, one) + cost(price, other) == cost(price, both) + price.request_pico_usd


@given(prices, usages, st.sampled_from(["prompt", "completion"]), st.integers(0, TOKENS_MAX))
def test_more_tokens_never_cost_less(price: Price, usage: TokenUsage, kind: str, more: int) -> None:
    larger = dataclasses.replace(usage, **{kind: getattr(usage, kind) + more})
    assert cost(price, larger) >= cost(price, usage)


@given(st.integers(0, USD_MAX * MILLION), st.integers(0, TOKENS_MAX))
def test_a_price_per_million_tokens_is_what_a_million_tokens_cost(micro_usd: int, tokens: int) -> None:
    rate = per_token(f"{Decimal(micro_usd) / MILLION:f}")
    free = PicoUsd(0)
    amount = cost(Price(rate, free, free, free), TokenUsage(prompt=tokens))
    assert Fraction(amount, PICO_USD_PER_USD) == Fraction(micro_usd, MILLION) * tokens / MILLION


@given(st.lists(st.integers(0, 50), unique=True).map(sorted), st.integers(-1, 51))
def test_the_last_price_of_the_past_is_in_force(days: list[int], day: int) -> None:
    free = Price(*[PicoUsd(0)] * 4)
    history = PriceHistory((EPOCH + dt.timedelta(days=each), EffectivePrice(each, free)) for each in days)
    found = history.at(EPOCH + dt.timedelta(days=day))
    past = [each for each in days if each <= day]
    assert (None if found is None else found.price_id) == (max(past) if past else None)


@given(st.integers(-(10**40), 10**40).map(PicoUsd))
def test_an_amount_in_dollars_loses_nothing(amount: PicoUsd) -> None:
    text = format_usd(amount)
    assert "E" not in text
    assert Fraction(text) == Fraction(usd(amount)) == Fraction(amount, PICO_USD_PER_USD)
