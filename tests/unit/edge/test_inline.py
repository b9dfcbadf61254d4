"""Inline images are told from text by where they stand; and how much a request asks to be generated."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.domain.call import NO_MEDIA, Call, Endpoint, InlineMedia
from gateway.domain.config import GatewayConfig, ModelConfig
from gateway.edge.body import parse_call
from gateway.edge.images import refuse_addresses
from gateway.edge.inline import inline_sources
from gateway.errors import InvalidRequest
from gateway.units import new_event_id

BASE64 = "A" * 1000
DATA = f"data:image/png;base64,{BASE64}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": BASE64}
MODELS = GatewayConfig.of([], [ModelConfig(name="m", pool="p", upstream="m", output_tokens=50)]).by_name


def fields_of(*content: object) -> dict[str, msgspec.Raw]:
    body = json.dumps({"messages": [{"role": "user", "content": one} for one in content]}).encode()
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])


def call(endpoint: Endpoint = Endpoint.COMPLETIONS, **fields: Any) -> Call:
    body = json.dumps({"model": "m", **fields}).encode()
    return parse_call(body, endpoint, {}, MODELS, event_id=new_event_id(), started_s=0.0)


def test_images_of_a_chat_are_those_in_their_places() -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": DATA}}]
    assert refuse_addresses(fields_of(parts, [{"type": "image_url", "image_url": DATA}]), ()) == InlineMedia(
        2 * len(DATA), 2
    )


def test_text_that_looks_like_an_image_is_text() -> None:
    hidden = {"type": "text", "text": f"data:image/png;base64,{'word ' * 1000}"}
    image = {"type": "image_url", "image_url": {"url": DATA}}
    assert refuse_addresses(fields_of([hidden, image]), ()) == InlineMedia(len(DATA), 1)
    assert refuse_addresses(fields_of([hidden]), ()) == NO_MEDIA
    assert inline_sources(fields_of([{"type": "text", "text": '"base64"'}, hidden])) == NO_MEDIA


def test_images_of_messages_are_those_in_their_places() -> None:
    image = {"type": "image", "source": SOURCE}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image, {"type": "text", "text": "x"}]}
    size = len(BASE64) + 2
    assert inline_sources(fields_of("text", [image, result])) == InlineMedia(2 * size, 2)
    text = {"type": "text", "text": "x", "source": SOURCE}
    assert inline_sources(fields_of([text, {"type": "image", "source": {**SOURCE, "type": "text"}}])) == NO_MEDIA


@pytest.mark.parametrize("content", [[{"type": 5, "source": SOURCE}], [SOURCE, 7], {"source": SOURCE}])
def test_an_unforeseen_shape_has_no_media(content: object) -> None:
    assert inline_sources(fields_of(content)) == NO_MEDIA


def test_a_call_knows_its_media() -> None:
    chat = call(Endpoint.CHAT_COMPLETIONS, messages=[{"role": "user", "content": [{"image_url": DATA}]}])
    message = call(Endpoint.MESSAGES, messages=[{"role": "user", "content": [{"type": "image", "source": SOURCE}]}])
    assert (chat.media.items, message.media.items) == (1, 1)
    assert call(prompt="x").media == NO_MEDIA


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("text", 1), (["a"], 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 1), ("[1,2]", 1)],
)
def test_every_prompt_is_completed_n_times(prompt: object, prompts: int) -> None:
    assert call(prompt=prompt).choices == prompts
    assert call(prompt=prompt, n=4).choices == 4 * prompts
    assert call(Endpoint.CHAT_COMPLETIONS, messages=[], prompt=prompt, n=4).choices == 4


def test_completions_are_bounded_over_all_prompts() -> None:
    assert call(prompt=["a"] * 64, n=2).choices == 128
    with pytest.raises(InvalidRequest, match="at most 128") as refused:
        call(prompt=["a"] * 65, n=2)
    assert refused.value.param == "prompt"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"])
def test_no_other_spelling_escapes_the_models_bound(name: str) -> None:
    asked = call(Endpoint.RESPONSES, input="x", **{name: 5000})
    assert bytes(asked.fields[name]) == b"50"
    assert asked.output_max == 50
    kept = call(Endpoint.RESPONSES, input="x", **{name: 7})
    assert bytes(kept.fields[name]) == b"7"
    assert kept.output_max == (7 if name == "max_output_tokens" else 50)
    with pytest.raises(InvalidRequest):
        call(Endpoint.RESPONSES, input="x", **{name: -1})
