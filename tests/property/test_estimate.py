"""What a request will probably use: always a sane figure, and learning never leaves its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.admit.estimate import BYTES_PER_TOKEN_MAX, BYTES_PER_TOKEN_MIN, MEDIA_TOKENS, Experience, estimate
from gateway.domain.call import InlineMedia

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_TOKENS_MAX = 65_536

lessons = st.lists(
    st.tuples(
        st.integers(0, 10**9),
        st.integers(0, 10**12),
        st.integers(0, 10**12),
        st.one_of(st.floats(0, 2_000), st.sampled_from([0.0, 5e-324])),
    ),
    max_size=40,
)
medias = st.builds(InlineMedia, st.integers(0, 10**9), st.integers(0, 100))


def experienced(taught: Sequence[tuple[int, int, int, float]]) -> Experience:
    """Return the experience that these requests leave."""
    experience = Experience()
    for lesson in taught:
        experience.learn(*lesson)
    return experience


@given(lessons)
@example([(10**9, 1, 10**12, 5e-324)] * 300)
@example([(1, 10**12, 1, 2_000.0)] * 300)
def test_experience_stays_within_its_bounds(taught: list[tuple[int, int, int, float]]) -> None:
    experience = experienced(taught)
    assert BYTES_PER_TOKEN_MIN <= experience.bytes_per_token <= BYTES_PER_TOKEN_MAX
    assert 16 <= experience.output_tokens <= OUTPUT_TOKENS_MAX
    assert 1 <= experience.output_tokens_per_s <= 10_000


@given(
    st.integers(0, 10**9),
    medias,
    lessons,
    st.one_of(st.none(), st.integers(0, 10**7)),
    st.integers(1, 128),
    st.booleans(),
)
def test_an_estimate_is_within_its_bounds(
    body_bytes: int,
    media: InlineMedia,
    taught: list[tuple[int, int, int, float]],
    output_max: int | None,
    choices: int,
    embeds: bool,  # noqa: FBT001 - hypothesis passes by position
) -> None:
    expected = estimate(
        body_bytes, experienced(taught), media=media, output_max=output_max, choices=choices, embeds=embeds
    )
    assert expected.prompt_bytes == max(body_bytes - media.size_bytes, 0)
    text_tokens = expected.prompt_tokens - media.items * MEDIA_TOKENS
    assert 1 <= text_tokens <= body_bytes / BYTES_PER_TOKEN_MIN + 1
    bound = 0 if embeds else choices * min(OUTPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX if output_max is None else output_max)
    assert 0 <= expected.completion_tokens <= bound


@given(st.integers(100, 10_000), st.floats(1.1, 7.9), st.integers(1, 10_000))
def test_experience_converges_on_what_requests_use(prompt_tokens: int, ratio: float, completion: int) -> None:
    prompt_bytes = int(prompt_tokens * ratio)
    experience = experienced([(prompt_bytes, prompt_tokens, completion, 1.0)] * 1_000)
    assert abs(experience.bytes_per_token - prompt_bytes / prompt_tokens) < 0.01
    assert 0.9 * max(completion, 16) <= experience.output_tokens <= 1.1 * max(completion, 16)
    assert abs(experience.output_tokens_per_s - completion) < 0.01 * completion
