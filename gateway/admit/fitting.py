"""Cuts an estimate to what the buckets can ever hold, and refuses a prompt that never fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admit.instructions import instruction_tokens
from gateway.errors import InstructionsExceedLimit, RequestExceedsLimit

if TYPE_CHECKING:
    from gateway.admit.estimate import Estimate
    from gateway.admit.policy import Applicable
    from gateway.domain.call import Call


def fitted(call: Call, expected: Estimate, limits: Applicable, bytes_per_token: float) -> Estimate:
    """Return an estimate that every bucket can hold when it is full.

    What a completion might need is a guess: it is cut to what the buckets can hold, so that a small limit still serves.

    Raises:
        RequestExceedsLimit: the prompt is larger than a bucket of tokens, or of input tokens, can ever hold.
        InstructionsExceedLimit: so are its tools and instructions, without any conversation.
    """
    tokens, inputs, outputs = limits.token_capacity, limits.input_capacity, limits.output_capacity
    if tokens is None and inputs is None and outputs is None:
        return expected
    weights = call.model.weights
    prompt_cost = expected.prompt_cost(weights)
    for capacity, name in ((tokens, "token limit"), (inputs, "input token limit")):
        if capacity is not None and prompt_cost > capacity:
            _refuse(call, expected, capacity, name, bytes_per_token)
    completion = expected.completion_tokens
    if tokens is not None:
        completion = _cut(completion, weights.output, prompt_cost, tokens)
    if outputs is not None:
        completion = _cut(completion, weights.output, 0.0, outputs)
    return expected if completion == expected.completion_tokens else expected._replace(completion_tokens=completion)


def _cut(completion: int, weight: float, prompt_cost: float, capacity: float) -> int:
    if completion * weight <= capacity - prompt_cost:
        return completion
    completion = int((capacity - prompt_cost) / weight)
    if prompt_cost + completion * weight > capacity:  # by a rounding, and then for ever
        completion -= 1
    return completion


def _refuse(call: Call, expected: Estimate, capacity: float, name: str, bytes_per_token: float) -> None:
    fixed_tokens = instruction_tokens(call.fields, bytes_per_token)
    if fixed_tokens * call.model.weights.input > capacity:
        raise InstructionsExceedLimit(
            f"the tools and instructions alone (about {fixed_tokens} tokens) are larger than the {name} "
            f"of {capacity:.0f} can ever hold; use fewer tools, or have the limit raised"
        )
    raise RequestExceedsLimit(
        f"the prompt (about {expected.prompt_tokens} tokens) is larger than the {name} of "
        f"{capacity:.0f} can ever hold; shorten it",
        param=call.endpoint.prompt_field,
    )
