"""Discounts of cached prompts: never more than the weights allow, never more than was seen, and bounded in memory."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.admit.cached_shares import CachedShares
from gateway.admit.estimate import Experience, estimate
from gateway.domain.call import NO_MEDIA, Call, Endpoint
from gateway.domain.config import ModelConfig, TokenWeights
from gateway.domain.usage import TokenUsage

ORGANIZATION = UUID(int=1)
weight = st.floats(0, 1000)
weights = st.builds(TokenWeights, weight, weight, weight)
usages = st.builds(TokenUsage, st.integers(0, 10**7), st.integers(0, 10**7))


def call(of: TokenWeights, session: str | None = "ses", *, model: str = "m", body_bytes: int = 400) -> Call:
    """Return a call of a session."""
    config = ModelConfig(name=model, pool="p", upstream=model, weights=of)
    body = b" " * body_bytes
    return Call(UUID(int=0), Endpoint.CHAT_COMPLETIONS, model, config, {}, body, False, False, None, 1, session, 0.0)


@given(weights, st.lists(usages, max_size=5), st.integers(0, 10**5))
def test_a_prompt_never_counts_for_less_than_the_lighter_weight(
    of: TokenWeights, seen: list[TokenUsage], body_bytes: int
) -> None:
    shares = CachedShares()
    asked = call(of, body_bytes=body_bytes)
    for usage in seen:
        shares.learn(ORGANIZATION, asked, usage)
    share = shares.expected(ORGANIZATION, asked)
    assert 0 <= share <= 1
    expected = estimate(
        body_bytes, Experience(), media=NO_MEDIA, output_max=None, choices=1, embeds=False, cached_share=share
    )
    assert 0 <= expected.cached_tokens <= expected.prompt_tokens
    cost, tokens = expected.prompt_cost(of), expected.prompt_tokens
    slack = 1e-9 * max(cost, 1)
    assert tokens * min(of.input, of.cached_input) - slack <= cost <= tokens * max(of.input, of.cached_input) + slack
    if of.input == of.cached_input or not any(usage.cached for usage in seen):
        assert expected.cached_tokens == 0


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_the_last_answer_of_the_session_decides(prompt: int, cached: int) -> None:
    of = TokenWeights(1, 0.1, 1)
    shares = CachedShares()
    for usage in (TokenUsage(100, 100), TokenUsage(prompt, min(cached, prompt))):
        shares.learn(ORGANIZATION, call(of), usage)
    assert shares.expected(ORGANIZATION, call(of)) == min(cached, prompt) / prompt


def test_sessions_are_told_apart_and_forgotten_in_turn() -> None:
    of = TokenWeights(1, 0.1, 1)
    shares = CachedShares(sessions_max=2)
    half = TokenUsage(100, 50)
    shares.learn(ORGANIZATION, call(of, "a"), half)
    for other in (call(of, "b"), call(of, "a", model="n"), call(of, None)):
        assert shares.expected(ORGANIZATION, other) == 0
    assert shares.expected(UUID(int=2), call(of, "a")) == 0, "another organization's session of the same name"
    shares.learn(ORGANIZATION, call(of, "b"), half)
    assert shares.expected(ORGANIZATION, call(of, "a")) == 0.5, "used just now"
    shares.learn(ORGANIZATION, call(of, "c"), half)
    assert len(shares) == 2
    assert [shares.expected(ORGANIZATION, call(of, name)) for name in "abc"] == [0.5, 0, 0.5]
