"""What text-generation-inference would take for an image in the text of a prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.edge.markdown import refuse_markdown_images
from gateway.errors import ImageAddressRefused, InvalidRequest

INSIDE = "http://169.254.169.254/"
IMAGE = f"what is ![]({INSIDE})?"
HOSTS = ("img.example.com",)


def text(*texts: str) -> list[dict[str, Any]]:
    """Return a message's content of these texts."""
    return [{"type": "text", "text": each} for each in texts]


def image(url: str) -> dict[str, Any]:
    """Return a part of a message that is an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def chat(content: Any, **fields: Any) -> bytes:
    """Return a body."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


FETCHED = [
    chat(IMAGE),
    chat(IMAGE.replace("http", "HTTPS")),
    chat(f"![]({INSIDE}"),
    chat(text("hello!", IMAGE)),
    *(chat(text(IMAGE[:cut], "", IMAGE[cut:])) for cut in range(8, 17)),
    chat([*text("see"), image(f"data:)![]({INSIDE}")]),
    chat([image(f"http://img.example.com/a)![]({INSIDE}")]),
    chat(text("![](http://img.example.com", "@10.0.0.1/)")),
    chat("![](http://img.example.com"),
    chat("hi", tools=[{"type": "function", "function": {"name": "f", "description": IMAGE}}]),
    chat("hi", tools=[{"function": {"parameters": {IMAGE: {"type": "string"}}}}]),
    json.dumps({"prompt": ["hi", IMAGE]}).encode(),
    json.dumps({"prompt": IMAGE, "x": ["]"]}).encode().replace(b"![](", b"\\u0021\\u005b\\u005D\\u0028"),
    b'{"prompt":%b,"prompt":"]"}' % json.dumps(IMAGE).encode(),
]


@pytest.mark.parametrize("body", FETCHED, ids=range(len(FETCHED)))
def test_what_would_be_fetched_is_refused(body: bytes) -> None:
    for hosts in ((), HOSTS):
        with pytest.raises(ImageAddressRefused) as refused:
            refuse_markdown_images(body, hosts)
        assert refused.value.param in {"messages", "prompt", "tools"}


@pytest.mark.parametrize(
    "body",
    [
        chat("Hello!"),
        chat(f"[a link]({INSIDE}), ![a picture]({INSIDE}), f[](http), ![](a.png), ![] ({INSIDE})"),
        chat([*text("what is this?"), image("data:image/png;base64,iVBORw0KGgo="), *text(f"({INSIDE})")]),
        chat(text("![](", " " + INSIDE)),
        chat("a]", n=1e9, seed=10**400, x=[None, True, [["]"]]]),
    ],
    ids=range(5),
)
def test_all_else_passes(body: bytes) -> None:
    refuse_markdown_images(body, ())


def test_hosts_that_a_model_lists_pass() -> None:
    body = chat([image("http://img.example.com/a"), *text("and ![](https://img.example.com/b)")])
    refuse_markdown_images(body, HOSTS)
    with pytest.raises(ImageAddressRefused):
        refuse_markdown_images(body, ())


@pytest.mark.parametrize("prompt", [b'"](\xff"', b"[" * 100_000 + b'"]("' + b"]" * 100_000])
def test_what_cannot_be_read_is_refused(prompt: bytes) -> None:
    with pytest.raises(InvalidRequest):
        refuse_markdown_images(b'{"prompt":' + prompt + b"}", ())
