"""Addresses in prompts, through a real replica: no engine hears of one that may not be fetched, in any dialect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateway import SIM_MODEL
from tests.support.scripted import ScriptedEngine, json_script
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

INSIDE = "http://169.254.169.254/latest/meta-data/"
OUTSIDE = "https://img.example.com/a.png"
INLINE = "data:image/png;base64,iVBORw0KGgo="
MODELS = {
    "sim": SIM_MODEL,
    "listed": {"pool": "gpu", "upstream": "sim", "media_hosts": ["img.example.com"]},
    "public": {"pool": "gpu", "upstream": "sim", "media_hosts": ["*"]},
}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with models of each kind."""
    folder = tmp_path_factory.mktemp("media")
    with running_stack(databases, servers, folder, config={"models": MODELS}) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


def user(*parts: object) -> list[dict[str, Any]]:
    """Return a conversation of one turn."""
    return [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, *parts]}]


def chat_image(address: str) -> dict[str, Any]:
    """Return a chat completion request with an image."""
    return {"messages": user({"type": "image_url", "image_url": {"url": address}})}


REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "image": ("chat/completions", chat_image(INSIDE), "messages[0].content[1].image_url"),
    "bare image": (
        "chat/completions",
        {"messages": user({"type": "image_url", "image_url": INSIDE})},
        "messages[0].content[1].image_url",
    ),
    "video": (
        "chat/completions",
        {"messages": user({"type": "video_url", "video_url": {"url": INSIDE}})},
        "messages[0].content[1].video_url",
    ),
    "beside a prompt": ("completions", {"prompt": "hi", **chat_image(INSIDE)}, "messages[0].content[1].image_url"),
    "beside an input": ("embeddings", {"input": "hi", **chat_image(INSIDE)}, "messages[0].content[1].image_url"),
    "in what is embedded": ("embeddings", {"input": [{"text": "x", "image": INSIDE}]}, "input[0].image"),
    "Anthropic's": (
        "messages",
        {"max_tokens": 9, "messages": user({"type": "image", "source": {"type": "url", "url": INSIDE}})},
        "messages[0].content[1].source.url",
    ),
    "Anthropic's, counted": (
        "messages/count_tokens",
        {"messages": user({"type": "document", "source": {"type": "url", "url": INSIDE}})},
        "messages[0].content[1].source.url",
    ),
    "Responses'": (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": INSIDE}]}]},
        "input[0].content[0].image_url",
    ),
    "Responses' file": (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": INSIDE}]}]},
        "input[0].content[0].file_url",
    ),
}


@pytest.mark.parametrize(("path", "request_", "param"), REQUESTS.values(), ids=REQUESTS)
def test_no_engine_hears_of_an_address_inside(
    stack: Stack, client: Http, path: str, request_: dict[str, Any], param: str
) -> None:
    received = stack.engine.counters()["received"]
    for model in MODELS:
        answer = client.post(f"/v1/{path}", {"model": model, **request_})
        assert answer.status == 400, answer
        if not path.startswith("messages"):  # Anthropic's errors have neither
            assert (answer.error["code"], answer.error["param"]) == ("image_address_refused", param)
        assert answer.headers["x-should-retry"] == "false"
    assert stack.engine.counters()["received"] == received


@pytest.mark.parametrize(
    ("model", "address", "status"),
    [
        ("sim", INLINE, 200),
        ("sim", OUTSIDE, 400),
        ("listed", OUTSIDE, 200),
        ("listed", "https://other.example.com/a.png", 400),
        ("public", "https://other.example.com/a.png", 200),
        ("public", "http://redis:6379/", 400),
    ],
)
def test_a_model_says_what_may_be_fetched(client: Http, model: str, address: str, status: int) -> None:
    assert client.post("/v1/chat/completions", {"model": model, **chat_image(address)}).status == status


def test_escaped_and_doubled_keys_evade_nothing(stack: Stack, client: Http) -> None:
    received = stack.engine.counters()["received"]
    text = json.dumps({"model": "sim", **chat_image(INSIDE)})
    for spelling in (
        text.replace('"image_url": {', '"image\\u005furl": {'),
        text.replace('"image_url": {', '"IMAGE_\\u0055RL"\t: {'),
        text.replace('"url":', '"url": "data:,", "url":'),
        text.replace('"url":', '"\\u0075rl":').replace("169.254.169.254", "\\u0031\\u0036\\u0039.254.43518"),
        text.replace(f'"{INSIDE}"', f'"{INSIDE}", "url": "{INLINE}"'),
    ):
        assert spelling != text
        assert client.post("/v1/chat/completions", spelling.encode()).error["code"] == "image_address_refused"
    assert stack.engine.counters()["received"] == received


def test_text_generation_inference_is_sent_no_address_in_a_text(
    databases: Databases, servers: ServerAddresses, tmp_path: Path
) -> None:
    """It fetches what markdown calls an image; no other engine does."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    request = {"messages": [{"role": "user", "content": f"what is ![]({INSIDE})?"}]}
    with ScriptedEngine() as engine:
        engine.script = json_script({"model": "sim", "choices": [choice]})
        models: dict[str, Any] = {name: {"pool": name, "upstream": "sim"} for name in ("tgi", "vllm")}
        pools = {name: {"engine": name, "endpoints": [engine.url]} for name in models}
        models["either"] = {"pool": "vllm", "upstream": "sim", "fallbacks": ["tgi"]}
        with running_stack(databases, servers, tmp_path, config={"models": models, "pools": pools}) as stack:
            client = stack.client()
            for model in ("tgi", "either"):
                answer = client.post("/v1/chat/completions", {"model": model, **request})
                assert (answer.status, answer.error["param"]) == (400, "messages"), answer
            assert engine.bodies == []
            assert client.post("/v1/chat/completions", {"model": "vllm", **request}).status == 200
