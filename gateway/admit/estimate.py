"""What a request will probably use, before it runs: prompt tokens from its size, completion tokens from experience.

Estimates only decide what is reserved; settling replaces them by what was used. Both figures are learnt per model from
the engines' own counts, and shared by the replicas (see `gateway.admit.shared_experience`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.domain.call import InlineMedia
    from gateway.domain.config import TokenWeights

DEFAULT_BYTES_PER_TOKEN = 4.0
DEFAULT_OUTPUT_TOKENS = 512.0
DEFAULT_OUTPUT_TOKENS_PER_S = 30.0
MEDIA_TOKENS = 800
"""Stands for one inline image or file."""
BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX = 1.0, 8.0
"""Between these all languages lie; what is beyond has bytes that no token was made of, or the other way round."""
OUTPUT_TOKENS_MIN, OUTPUT_TOKENS_MAX = 16.0, 65_536.0
TOKENS_PER_S_MIN, TOKENS_PER_S_MAX = 1.0, 10_000.0

_RATE = 0.05
_QUANTILE = 0.8


@dataclass(slots=True)
class Experience:
    """What one model's finished requests have taught. Bounded state, constant time per request.

    Beside each figure stands how many lessons it took in, and how much of it is left of what it was when it was last
    shared (1: all of it, as nothing was learnt since).
    """

    bytes_per_token: float = DEFAULT_BYTES_PER_TOKEN
    output_tokens: float = DEFAULT_OUTPUT_TOKENS
    output_tokens_per_s: float = DEFAULT_OUTPUT_TOKENS_PER_S
    prompts: int = 0
    outputs: int = 0
    speeds: int = 0
    prompts_kept: float = 1.0
    outputs_kept: float = 1.0
    speeds_kept: float = 1.0

    def learn(self, prompt_bytes: int, prompt_tokens: int, completion_tokens: int, generation_s: float) -> None:
        """Take in one request that ended with exact usage.

        The ratio and the speed are plain averages at first, in which the default counts as one request (the first may
        have waited for a model to be loaded), and exponential ones from the twentieth on. The expected output follows
        the 80th percentile by stochastic approximation (Robbins and Monro, 1951) on a logarithmic scale: up a step when
        a request used more, down a smaller one when it used less.
        """
        if prompt_tokens > 0 and prompt_bytes > 0:
            ratio = min(max(prompt_bytes / prompt_tokens, BYTES_PER_TOKEN_MIN), BYTES_PER_TOKEN_MAX)
            self.prompts += 1
            rate = max(_RATE, 1 / (self.prompts + 1))
            self.bytes_per_token += rate * (ratio - self.bytes_per_token)
            self.prompts_kept *= 1 - rate
        if completion_tokens > 0:
            step = _QUANTILE if completion_tokens > self.output_tokens else _QUANTILE - 1
            moved = self.output_tokens * math.exp(_RATE * step)
            self.output_tokens = min(max(moved, OUTPUT_TOKENS_MIN), OUTPUT_TOKENS_MAX)
            self.outputs += 1
            self.outputs_kept *= 1 - _RATE
            if generation_s > 0.05:
                speed = min(max(completion_tokens / generation_s, TOKENS_PER_S_MIN), TOKENS_PER_S_MAX)
                self.speeds += 1
                rate = max(_RATE, 1 / (self.speeds + 1))
                self.output_tokens_per_s += rate * (speed - self.output_tokens_per_s)
                self.speeds_kept *= 1 - rate


class Estimate(NamedTuple):
    """Tokens that a request is expected to use. `prompt_bytes` is the text that the prompt estimate was made from.

    `cached_tokens` of the prompt are expected to be in the engine's cache; always 0 where they weigh as much as others.
    """

    prompt_tokens: int
    completion_tokens: int
    prompt_bytes: int
    cached_tokens: int = 0

    def prompt_cost(self, weights: TokenWeights) -> float:
        """Return what the prompt counts for a limit of tokens."""
        cached = self.cached_tokens
        return (self.prompt_tokens - cached) * weights.input + cached * weights.cached_input


NOTHING_EXPECTED = Estimate(0, 0, 0)


def estimate(
    body_bytes: int,
    experience: Experience,
    *,
    media: InlineMedia,
    output_max: int | None,
    choices: int,
    embeds: bool,
    cached_share: float = 0.0,
) -> Estimate:
    """Estimate a request from its size.

    Args:
        body_bytes: of the whole body.
        experience: what is known of the model.
        media: what of the body is no text: it counts by the item.
        output_max: the bound that the client or the model sets on one completion, None for none.
        choices: how many completions are asked for, of all prompts.
        embeds: whether nothing is generated.
        cached_share: of the prompt that the engine has computed before, from 0 to 1.
    """
    text_bytes = max(body_bytes - media.size_bytes, 0)
    prompt_tokens = max(math.ceil(text_bytes / experience.bytes_per_token), 1) + media.items * MEDIA_TOKENS
    cached_tokens = int(prompt_tokens * cached_share)
    if embeds:
        return Estimate(prompt_tokens, 0, text_bytes, cached_tokens)
    expected = math.ceil(experience.output_tokens)
    if output_max is not None:
        expected = min(expected, output_max)
    return Estimate(prompt_tokens, expected * choices, text_bytes, cached_tokens)
