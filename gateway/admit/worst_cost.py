"""The most that a request is expected to cost: what budgets hold for it until it is settled, and what OPEN says.

Holding more than is used blocks nobody for longer than the request runs; holding less would let budgets be overrun.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.domain.call import Endpoint
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from gateway.admit.estimate import Estimate
    from gateway.domain.call import Call
    from gateway.domain.config import Price

PROMPT_SAFETY = 1.5
"""How far a prompt may be larger than its estimate: bytes say little of languages and tokenizers not seen yet."""

OUTPUT_SAFETY = 4
"""How far an answer may be longer than expected where neither client nor model bounds it."""


class EffectivePrice(Protocol):
    """A price that is in force."""

    @property
    def price(self) -> Price: ...


class Prices(Protocol):
    """What admission needs of prices."""

    def current(self, model: str) -> EffectivePrice | None:
        """Return the price of a model now, None when it has none."""
        ...


class WorstCost(NamedTuple):
    """`most` is what a request may cost, `least` what its prompt and one token may, `per_token` what each more does."""

    most: PicoUsd
    least: PicoUsd
    per_token: int

    def tokens(self, allowance: PicoUsd) -> float:
        """Return how many tokens may be generated for an allowance of at least `least`."""
        return 1 + (allowance - self.least) // self.per_token if self.per_token else math.inf


_FREE = WorstCost(PicoUsd(0), PicoUsd(0), 0)


def worst_cost(call: Call, expected: Estimate, effective: EffectivePrice | None) -> WorstCost:
    """Return what a request may cost; nothing without a price.

    Every token counts by the dearer rate of its kind. The prompt is its estimate times PROMPT_SAFETY, at most the
    model's context. The answer is what the request bounds it to; where it does not, OUTPUT_SAFETY times what is
    expected: the model's own bound is so far from what answers are that a small budget would let nothing through.
    Neither is more than the model and its context allow.
    """
    if effective is None or call.endpoint is Endpoint.COUNT_TOKENS:
        return _FREE
    price, context = effective.price, call.model.context_tokens
    prompt = math.ceil(expected.prompt_tokens * PROMPT_SAFETY)
    if context is not None and prompt > context:
        prompt = context
    rate, other = price.input_pico_usd, price.cached_input_pico_usd
    fixed = price.request_pico_usd + prompt * (rate if rate > other else other)
    output = expected.completion_tokens
    if output:  # else nothing is generated, or nothing may be
        bound = call.output_max
        if context is not None:
            left = max(context - expected.prompt_tokens, 1)
            bound = left if bound is None or bound > left else bound
        output *= OUTPUT_SAFETY
        if bound is not None:
            most = bound * call.choices
            output = most if call.bounded else min(output, most)
    rate, other = price.output_pico_usd, price.reasoning_pico_usd
    rate = rate if rate > other else other
    return WorstCost(PicoUsd(fixed + output * rate), PicoUsd(fixed + (rate if output else 0)), rate)
