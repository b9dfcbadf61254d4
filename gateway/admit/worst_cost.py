"""The most that a request is expected to cost: what budgets hold for it until it is settled, and what OPEN says.

Holding more than is used blocks nobody for longer than the request runs; holding less would let budgets be overrun.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

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

_FREE = (PicoUsd(0), PicoUsd(0))


class EffectivePrice(Protocol):
    """A price that is in force."""

    @property
    def price(self) -> Price: ...


class Prices(Protocol):
    """What admission needs of prices."""

    def current(self, model: str) -> EffectivePrice | None:
        """Return the price of a model now, None when it has none."""
        ...


def worst_cost(call: Call, expected: Estimate, effective: EffectivePrice | None) -> tuple[PicoUsd, PicoUsd]:
    """Return what a request may cost at most, and what its prompt and one token may; nothing without a price.

    Every token counts by the dearer rate of its kind. The prompt is its estimate times PROMPT_SAFETY, at most the
    model's context. The answer is what the client and the model bound it to, else what the context leaves, else
    OUTPUT_SAFETY times what is expected.
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
        output = OUTPUT_SAFETY * output if bound is None else bound * call.choices
    rate, other = price.output_pico_usd, price.reasoning_pico_usd
    rate = rate if rate > other else other
    return PicoUsd(fixed + output * rate), PicoUsd(fixed + (rate if output else 0))
