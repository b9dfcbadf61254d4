"""Experience: the estimate of a request follows what the requests before it used."""

from __future__ import annotations

from gateway.admit.estimate import DATA_URL_TOKENS, Experience, estimate


def test_without_experience_four_bytes_are_a_token() -> None:
    expected = estimate(b"x" * 400, Experience(), output_max=None, choices=1, embeds=False)
    assert expected == (100, 512, 400)


def test_a_bound_that_the_client_set_is_never_exceeded() -> None:
    assert estimate(b"x", Experience(), output_max=10, choices=4, embeds=False).completion_tokens == 40
    assert estimate(b"x", Experience(), output_max=0, choices=1, embeds=False).completion_tokens == 0


def test_every_prompt_is_at_least_a_token() -> None:
    assert estimate(b"", Experience(), output_max=None, choices=1, embeds=True).prompt_tokens == 1


def test_an_image_counts_as_one_and_its_bytes_do_not() -> None:
    body = b'{"url":"data:image/png;base64,%b"}' % (b"A" * 10_000)
    expected = estimate(body, Experience(), output_max=None, choices=1, embeds=True)
    assert expected.prompt_bytes < 40
    assert DATA_URL_TOKENS < expected.prompt_tokens < DATA_URL_TOKENS + 20
    spared = estimate(body, Experience(), output_max=None, choices=1, embeds=True, media=False)
    assert spared.prompt_bytes == len(body), "it is not searched for where there can be none"
    unclosed = estimate(body[:-2], Experience(), output_max=None, choices=1, embeds=True)
    assert unclosed.prompt_bytes == len(body) - 2, "what is no string is counted by its size"


def test_an_image_of_anthropics_dialect_counts_as_one_too() -> None:
    source = b'{"type": "base64", "media_type": "image/png", "data": "%b"}' % (b"A" * 10_000)
    body = b'{"content":[%b,%b]}' % (source, source.replace(b": ", b":"))
    expected = estimate(body, Experience(), output_max=None, choices=1, embeds=True)
    assert expected.prompt_bytes == len(body) - 20_000
    assert 2 * DATA_URL_TOKENS < expected.prompt_tokens < 2 * DATA_URL_TOKENS + 60
    quoted = body.replace(b'"', b'\\"')
    assert estimate(quoted, Experience(), output_max=None, choices=1, embeds=True).prompt_bytes == len(quoted), (
        "what a text quotes is text"
    )


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
