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
    """`most` is what a request may cost, `least` what its prompt and one token may."""

    most: PicoUsd
    least: PicoUsd


FREE = WorstCost(PicoUsd(0), PicoUsd(0))


def worst_cost(call: Call, expected: Estimate, effective: EffectivePrice | None) -> WorstCost:
    """Return what a request may cost, every token by the dearer rate of its kind; FREE without a price.

    The prompt is its estimate times PROMPT_SAFETY, at most the model's context. The answer is what the client and the
    model bound it to, else what the context leaves, else OUTPUT_SAFETY times what is expected.
    """
    if effective is None or call.endpoint is Endpoint.COUNT_TOKENS:
        return FREE
    price, context = effective.price, call.model.context_tokens
    prompt = math.ceil(expected.prompt_tokens * PROMPT_SAFETY)
    if context is not None and prompt > context:
        prompt = context
    fixed = price.request_pico_usd + prompt * max(price.input_pico_usd, price.cached_input_pico_usd)
    if not call.endpoint.generates:
        return WorstCost(PicoUsd(fixed), PicoUsd(fixed))
    per_token = max(price.output_pico_usd, price.reasoning_pico_usd)
    output = OUTPUT_SAFETY * expected.completion_tokens
    bound = call.output_max
    if context is not None:
        left = max(context - expected.prompt_tokens, 1)
        bound = left if bound is None or bound > left else bound
    if bound is not None:
        output = bound * call.choices
    return WorstCost(PicoUsd(fixed + output * per_token), PicoUsd(fixed + min(output, 1) * per_token))
