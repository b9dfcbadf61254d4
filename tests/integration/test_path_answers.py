"""Answers as clients get them through a replica: every address, names restored, nothing else touched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import ENDPOINTS, chat, completion, embedding, text_of, tool
from tests.support.engine import EngineProcess
from tests.support.gateway import SIM_MODEL
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

UPSTREAM = "Vendor/Coder-30B"
MODELS = {
    "coder": {"pool": "gpu", "upstream": UPSTREAM, "aliases": ["default", "team/coder"], "context": 9000, "output": 40},
    "sim": SIM_MODEL | {"aliases": []},
    "secret": {"pool": "gpu", "upstream": "sim"},
}
PREFIXES = ("/v1", "", "/api/v1")


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before one engine that serves two models."""
    engines = [EngineProcess("sim", UPSTREAM, output_tokens=8)]
    folder = tmp_path_factory.mktemp("answers")
    with running_stack(databases, servers, folder, engines=engines, config={"models": MODELS}) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key that may do everything."""
    return stack.client()


def last_request(stack: Stack) -> dict[str, Any]:
    """Return what the engine was sent last."""
    request: dict[str, Any] = stack.engine.state()["requests"][-1]
    return request


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_answers_under_every_prefix(stack: Stack, client: Http, prefix: str, endpoint: str) -> None:
    answer = client.post(f"{prefix}/{endpoint}", ENDPOINTS[endpoint](model="team/coder"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.document["model"] == "team/coder"
    sent = last_request(stack)
    assert sent["path"] == f"/v1/{endpoint}"
    assert sent["body"] == ENDPOINTS[endpoint](model=UPSTREAM)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_every_generating_endpoint_streams_under_every_prefix(client: Http, prefix: str, endpoint: str) -> None:
    with client.stream(f"{prefix}/{endpoint}", ENDPOINTS[endpoint](model="default", stream=True)) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = list(stream.data())
    assert not stream.cut
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["model"] for chunk in chunks} == {"default"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all(chunk["choices"] for chunk in chunks), "the usage chunk was not asked for"


def test_a_stream_says_what_the_whole_answer_says(client: Http) -> None:
    whole = client.post("/v1/chat/completions", chat(seed=7)).document
    with client.stream("/v1/chat/completions", chat(seed=7, stream=True)) as stream:
        assert text_of(stream.chunks()) == whole["choices"][0]["message"]["content"] != ""


def test_usage_is_streamed_to_those_who_ask(client: Http) -> None:
    wanted = chat(stream=True, stream_options={"include_usage": True}, model="default")
    with client.stream("/v1/chat/completions", wanted) as stream:
        *chunks, last = stream.chunks()
    assert last["choices"] == []
    assert last["model"] == "default"
    assert last["usage"]["completion_tokens"] == 8
    assert not any(chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_usage": None}, {"vendor": [1]}], ids=str
)
def test_the_engine_is_asked_for_usage_and_others_do_not_see_it(stack: Stack, client: Http, options: Any) -> None:
    with client.stream("/v1/chat/completions", chat(stream=True, stream_options=options)) as stream:
        chunks = stream.chunks()
    assert not any("usage" in chunk for chunk in chunks)
    assert last_request(stack)["body"]["stream_options"] == {**(options or {}), "include_usage": True}


def test_continuous_usage_reaches_those_who_ask(client: Http) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    with client.stream("/v1/chat/completions", chat(stream=True, stream_options=options)) as stream:
        assert all("usage" in chunk for chunk in stream.chunks())


def test_continuous_usage_without_include_usage_stays_without_effect(client: Http) -> None:
    """On the engine it means nothing alone; that the gateway asks for usage must not make it mean something."""
    options = {"continuous_usage_stats": True}
    with client.stream("/v1/chat/completions", chat(stream=True, stream_options=options)) as stream:
        assert not any("usage" in chunk for chunk in stream.chunks())


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_calls_pass_untouched(stack: Stack, client: Http, *, streamed: bool) -> None:
    request = chat(
        'call read_file {"path": "a \\"b\\" ü.txt", "lines": 3}',
        tools=[tool("read_file", path="string", lines="integer")],
        tool_choice="auto",
        parallel_tool_calls=False,
        stream=streamed,
    )
    arguments = {"path": 'a "b" ü.txt', "lines": 3}
    if streamed:
        with client.stream("/v1/chat/completions", request) as stream:
            chunks = stream.chunks()
        calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert calls[0]["function"]["name"] == "read_file"
        assert json.loads("".join(call["function"]["arguments"] for call in calls)) == arguments
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        choice = client.post("/v1/chat/completions", request).document["choices"][0]
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == arguments
        assert choice["finish_reason"] == "tool_calls"
    sent = last_request(stack)["body"]
    sent.pop("stream_options", None)
    assert sent == request


def test_a_conversation_with_tool_results_and_images_reaches_the_engine_as_it_is(stack: Stack, client: Http) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    messages = [
        {"role": "system", "content": "be brief", "cache_control": {"type": "ephemeral"}},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}, image]},
    ]
    request = {"model": "sim", "messages": messages, "temperature": 0.25, "metadata": {"a": [None, True, 1.5, "x"]}}
    assert client.post("/v1/chat/completions", request).status == 200
    assert last_request(stack)["body"] == request


@pytest.mark.parametrize("field", ["priority", "cache_salt", "kv_transfer_params", "request_id"], ids=str)
def test_fields_that_are_the_gateways_own_never_reach_the_engine(stack: Stack, client: Http, field: str) -> None:
    assert client.post("/v1/chat/completions", chat(**{field: "x"})).status == 200
    assert last_request(stack)["body"] == chat()


def test_neither_the_key_nor_the_clients_headers_reach_the_engine(stack: Stack, client: Http) -> None:
    assert client.key is not None
    headers = {"cookie": "a=b", "x-vendor": "1", "x-sim-status": "500", "x-session-id": "s"}
    assert client.post("/v1/chat/completions", chat(), headers).status == 200
    sent = last_request(stack)["headers"]
    assert not {"cookie", "x-vendor", "x-sim-status", "authorization", "x-api-key"} & sent.keys()
    assert client.key not in json.dumps(sent)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_output_is_capped_to_the_models(stack: Stack, client: Http, name: str) -> None:
    request = {**chat(model="coder", ignore_eos=True), name: 100_000}
    answer = client.post("/v1/chat/completions", request).document
    assert answer["usage"]["completion_tokens"] == 40
    assert last_request(stack)["body"][name] == 40
    assert client.post("/v1/chat/completions", {**chat(model="coder"), name: 5}).status == 200
    assert last_request(stack)["body"][name] == 5


def test_several_choices_come_back_whole_and_streamed(client: Http) -> None:
    assert len(client.post("/v1/chat/completions", chat(n=3)).document["choices"]) == 3
    with client.stream("/v1/chat/completions", chat(n=3, stream=True)) as stream:
        events = list(stream.data())
    assert events[-1] == "[DONE]"
    ended = {json.loads(event)["choices"][0]["index"] for event in events[:-1] if '"finish_reason":"stop"' in event}
    assert ended == {0, 1, 2}


def test_several_prompts_come_back_whole_and_streamed(client: Http) -> None:
    request = completion(["one", "two", "three"], n=2)
    assert len(client.post("/v1/completions", request).document["choices"]) == 6
    with client.stream("/v1/completions", {**request, "stream": True}) as stream:
        events = list(stream.data())
    assert events[-1] == "[DONE]"
    assert {json.loads(event)["choices"][0]["index"] for event in events[:-1]} == set(range(6))


def test_embeddings_ignore_stream(stack: Stack, client: Http) -> None:
    answer = client.post("/v1/embeddings", embedding(["a", "b"], encoding_format="base64", dimensions=4))
    assert [len(row["embedding"]) for row in answer.document["data"]] == [24, 24]
    assert answer.document["usage"]["completion_tokens"] == 0


def test_a_key_sees_the_models_that_it_may_use(stack: Stack, client: Http) -> None:
    for prefix in PREFIXES:
        listed = client.get(f"{prefix}/models").document
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == ["coder", "sim", "secret"]
    narrow = stack.client(models=["coder"])
    listed = narrow.get("/v1/models").document["data"]
    assert [(model["id"], model["aliases"]) for model in listed] == [("coder", ["default", "team/coder"])]
    assert (listed[0]["context_length"], listed[0]["max_output_tokens"]) == (9000, 40)


def test_one_model_is_shown_by_name_or_alias_if_the_key_may_use_it(stack: Stack) -> None:
    client = stack.client(models=["coder"])
    for prefix in PREFIXES:
        for name in ("coder", "default", "team/coder", "team%2Fcoder"):
            answer = client.get(f"{prefix}/models/{name}")
            assert (answer.status, answer.document["id"]) == (200, name.replace("%2F", "/"))
            assert answer.request_id
    for name in ("secret", "nothing", "team/nothing", UPSTREAM):
        answer = client.get(f"/v1/models/{name}")
        assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


def test_a_key_may_use_a_model_by_its_alias_and_no_other_model(stack: Stack) -> None:
    client = stack.client(models=["coder"])
    assert client.post("/v1/chat/completions", chat(model="default")).status == 200
    refused = client.post("/v1/chat/completions", chat(model="secret"))
    assert (refused.status, refused.error["code"], refused.error["param"]) == (403, "model_not_allowed", "model")


def test_a_key_is_taken_from_x_api_key_too(stack: Stack) -> None:
    key = stack.tenant().key
    anonymous = stack.gateway.http()
    assert anonymous.post("/v1/chat/completions", chat(), {"x-api-key": key}).status == 200
    assert anonymous.post("/v1/chat/completions", chat(), {"authorization": f"bearer  {key}"}).status == 200
