"""Experience: the estimate of a request follows what the requests before it used."""

from __future__ import annotations

from gateway.admit.estimate import MEDIA_TOKENS, Estimate, Experience, estimate
from gateway.domain.call import NO_MEDIA, InlineMedia


def estimated(
    body_bytes: int,
    *,
    media: InlineMedia = NO_MEDIA,
    output_max: int | None = None,
    choices: int = 1,
    embeds: bool = False,
) -> Estimate:
    return estimate(body_bytes, Experience(), media=media, output_max=output_max, choices=choices, embeds=embeds)


def test_without_experience_four_bytes_are_a_token() -> None:
    assert estimated(400) == (100, 512, 400, 0)


def test_a_bound_that_the_client_set_is_never_exceeded() -> None:
    assert estimated(1, output_max=10, choices=4).completion_tokens == 40
    assert estimated(1, output_max=0).completion_tokens == 0


def test_every_prompt_is_at_least_a_token() -> None:
    assert estimated(0, embeds=True).prompt_tokens == 1
    assert estimated(10, media=InlineMedia(20, 0), embeds=True).prompt_tokens == 1


def test_an_image_counts_as_one_and_its_bytes_do_not() -> None:
    assert estimated(10_040, media=InlineMedia(10_000, 2), embeds=True) == (10 + 2 * MEDIA_TOKENS, 0, 40, 0)


def test_usage_without_tokens_teaches_nothing() -> None:
    experience = Experience()
    experience.learn(100, 0, 0, 1.0)
    experience.learn(0, 100, 0, 1.0)
    assert experience == Experience()


def test_one_request_teaches_as_much_as_the_defaults() -> None:
    experience = Experience(bytes_per_token=4.0, output_tokens_per_s=30.0)
    experience.learn(500, 100, 400, 2.0)
    assert (experience.bytes_per_token, experience.output_tokens_per_s) == (4.5, 115.0)
    for _ in range(100):
        experience.learn(500, 100, 400, 2.0)
    experience.learn(500, 200, 400, 4.0)
    assert 4.8 < experience.bytes_per_token < 5.0, "one more changes little once much is known"
    assert 190 < experience.output_tokens_per_s < 200


def test_a_speed_needs_a_time_to_be_measured_in() -> None:
    experience = Experience()
    experience.learn(400, 100, 1_000, 0.01)
    assert experience.output_tokens_per_s == Experience().output_tokens_per_s
    assert experience.output_tokens > Experience().output_tokens
