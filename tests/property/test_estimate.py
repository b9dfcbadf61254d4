"""What a request will probably use: always a sane figure, and learning never leaves its bounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.admit.estimate import DATA_URL_TOKENS, Experience, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

BYTES_PER_TOKEN_MIN = 0.5
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
bodies = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b'"', b";base64,", b"data:image/png;base64,AAAA", b"text "]), max_size=20).map(b"".join),
)


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
    assert BYTES_PER_TOKEN_MIN <= experience.bytes_per_token <= 16
    assert 16 <= experience.output_tokens <= OUTPUT_TOKENS_MAX
    assert 1 <= experience.output_tokens_per_s <= 10_000


@given(bodies, lessons, st.one_of(st.none(), st.integers(0, 10**7)), st.integers(1, 128), st.booleans())
def test_an_estimate_is_within_its_bounds(
    body: bytes,
    taught: list[tuple[int, int, int, float]],
    output_max: int | None,
    choices: int,
    embeds: bool,  # noqa: FBT001 - hypothesis passes by position
) -> None:
    expected = estimate(body, experienced(taught), output_max=output_max, choices=choices, embeds=embeds)
    assert 0 <= expected.prompt_bytes <= len(body)
    images = body.count(b";base64,")
    assert 1 <= expected.prompt_tokens <= len(body) / BYTES_PER_TOKEN_MIN + 1 + images * DATA_URL_TOKENS
    bound = 0 if embeds else choices * min(OUTPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX if output_max is None else output_max)
    assert 0 <= expected.completion_tokens <= bound


@given(st.binary(max_size=300), st.integers(0, 3), st.text(max_size=50))
def test_inline_images_count_by_the_piece_and_not_by_their_size(image: bytes, count: int, text: str) -> None:
    encoded = image.hex() * 50
    images = [{"image_url": {"url": f"data:image/png;base64,{encoded}"}} for _ in range(count)]
    body = json.dumps({"messages": [{"content": [{"text": text.replace(";base64,", "")}, *images]}]}).encode()
    bare = json.dumps({"messages": [{"content": [{"text": text.replace(";base64,", "")}]}]}).encode()
    with_images, without = (
        estimate(each, Experience(), output_max=None, choices=1, embeds=True) for each in (body, bare)
    )
    added = with_images.prompt_tokens - without.prompt_tokens
    assert count * DATA_URL_TOKENS <= added <= count * (DATA_URL_TOKENS + 25)


@given(st.integers(100, 10_000), st.floats(0.6, 15.0), st.integers(1, 10_000))
def test_experience_converges_on_what_requests_use(prompt_tokens: int, ratio: float, completion: int) -> None:
    prompt_bytes = int(prompt_tokens * ratio)
    experience = experienced([(prompt_bytes, prompt_tokens, completion, 1.0)] * 1_000)
    assert abs(experience.bytes_per_token - prompt_bytes / prompt_tokens) < 0.01
    assert 0.9 * max(completion, 16) <= experience.output_tokens <= 1.1 * max(completion, 16)
    assert abs(experience.output_tokens_per_s - completion) < 0.01 * completion
