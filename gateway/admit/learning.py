"""What requests are expected to use, and what they teach when they have ended: experience by model, cached shares by
session, and how far the expectations were from the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admit.cached_shares import CachedShares
from gateway.admit.estimate import NOTHING_EXPECTED, Estimate, Experience, estimate
from gateway.domain.call import Endpoint

if TYPE_CHECKING:
    from gateway.domain.call import Call
    from gateway.domain.principal import Principal
    from gateway.domain.usage import TokenUsage
    from gateway.observe.estimates import EstimateErrors


class Learning:
    """Everything that estimates are made of, for all models."""

    def __init__(self, errors: EstimateErrors) -> None:
        self._errors = errors
        self._experience: dict[str, Experience] = {}
        self._cached = CachedShares()

    def experience(self, model: str) -> Experience:
        """Return what is known of a model (names are those of penstock.yaml, so they are bounded)."""
        experience = self._experience.get(model)
        if experience is None:
            experience = self._experience[model] = Experience()
        return experience

    def expect(self, principal: Principal, call: Call) -> Estimate:
        """Return what a call will probably use."""
        if call.endpoint is Endpoint.COUNT_TOKENS:
            return NOTHING_EXPECTED
        return estimate(
            len(call.body),
            self.experience(call.model.name),
            output_max=call.output_max,
            choices=call.choices,
            embeds=not call.endpoint.generates,
            media=call.media,
            cached_share=self._cached.expected(principal.organization_id, call),
        )

    def learn(
        self, principal: Principal, call: Call, expected: Estimate, used: TokenUsage, generation_s: float
    ) -> None:
        """Take in a request that ended well with exact usage; `generation_s` is how long its answer took to make."""
        name = call.model.name
        # Of an image's tokens the bytes of the text say nothing.
        prompt_bytes = expected.prompt_bytes if not call.media.items else 0
        self.experience(name).learn(prompt_bytes, used.prompt, used.completion, generation_s)
        self._cached.learn(principal.organization_id, call, used)
        self._errors.observe(
            name,
            prompt=(expected.prompt_tokens, used.prompt),
            completion=(expected.completion_tokens, used.completion),
        )
