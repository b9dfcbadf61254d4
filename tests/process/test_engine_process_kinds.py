"""The simulated engine in the shape of each server: metrics, health, tokenizers, LoRAs, and a bounded queue."""

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.engine import EngineProcess

CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello " * 40}], "max_tokens": 5}
TEXT = "Grüße, 世界!"
# By kind: names of requests that run and wait, generated tokens.
NAMES = {
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total"),
    "sglang": ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:generation_tokens_total"),
    "llamacpp": ("llamacpp:requests_processing", "llamacpp:requests_deferred", "llamacpp:tokens_predicted_total"),
    "tgi": ("tgi_batch_current_size", "tgi_queue_size", "tgi_request_generated_tokens_sum"),
}
# What each has besides the metrics, and what its answer to it shows.
ITS_OWN = {
    "vllm": {"/version": "version", "/ping": ""},
    "sglang": {"/get_server_info": "max_total_num_tokens", "/get_model_info": "model_path", "/health_generate": ""},
    "llamacpp": {"/props": "total_slots", "/slots": "is_processing", "/v1/health": "ok"},
    "tgi": {"/info": "max_total_tokens", "/ping": ""},
}


@pytest.fixture(scope="module", params=list(NAMES))
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, EngineProcess]]:
    with EngineProcess("sim", kind=request.param, max_num_seqs=1, max_queued_requests=1) as running:
        yield request.param, running


def status_of(engine: EngineProcess, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else None
    finally:
        connection.close()


def posted(engine: EngineProcess, path: str, body: Any) -> Any:
    status, answer = status_of(engine, "POST", path, body)
    assert status == 200, answer
    return answer


def test_each_kind_has_its_names_and_endpoints_and_not_those_of_others(engine: tuple[str, EngineProcess]) -> None:
    kind, running = engine
    before = running.metrics()
    for _ in range(2):
        usage = posted(running, "/v1/chat/completions", CHAT)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    metrics = running.metrics()
    assert [metrics[name] - before[name] for name in NAMES[kind]] == [0, 0, 10]
    prefixes = {name.split(":")[0].split("_")[0] for name in metrics}
    assert prefixes == {kind}
    for path, shown in ITS_OWN[kind].items():
        status, answer = status_of(running, "GET", path)
        assert (status, shown in json.dumps(answer)) == (200, True)
    for path in {path for paths in ITS_OWN.values() for path in paths} - set(ITS_OWN[kind]):
        assert status_of(running, "GET", path)[0] == 404
    status, answer = status_of(running, "GET", "/health")
    assert (status, answer) == (200, {"status": "ok"} if kind == "llamacpp" else None)


def test_tokenizers_take_and_give_back_in_the_shape_of_the_kind(engine: tuple[str, EngineProcess]) -> None:
    kind, running = engine
    count = -(-len(TEXT.encode()) // 4)
    if kind == "tgi":
        tokens = posted(running, "/tokenize", {"inputs": TEXT})
        assert "".join(token["text"] for token in tokens) == TEXT
        assert all(TEXT[token["start"] : token["stop"]] == token["text"] for token in tokens)
        assert len(tokens) == count
        return
    field = "content" if kind == "llamacpp" else "prompt"
    tokens = posted(running, "/tokenize", {field: TEXT})["tokens"]
    assert len(tokens) == count
    answer = posted(running, "/detokenize", {"tokens": tokens})
    assert answer == {{"vllm": "prompt", "sglang": "text", "llamacpp": "content"}[kind]: TEXT}
    for bad in ({}, {"tokens": [-1]}, {"tokens": ["a"]}, {"tokens": [2**32]}):
        assert status_of(running, "POST", "/detokenize", bad)[0] == 400


def test_who_does_not_fit_into_the_queue_is_refused(engine: tuple[str, EngineProcess]) -> None:
    kind, running = engine
    endless = CHAT | {"stream": True, "max_tokens": 100_000, "ignore_eos": True, "sim": {"tokens_per_second": 50}}
    with ExitStack() as opened:
        opened_so_far: list[http.client.HTTPConnection] = []
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
            opened.callback(connection.close)
            opened_so_far.append(connection)
            connection.request("POST", "/v1/chat/completions", json.dumps(endless))
            running.wait_for(lambda counters: counters["running"] + counters["waiting"] == len(opened_so_far))
        metrics = running.metrics()
        assert [metrics[name] for name in NAMES[kind][:2]] == [1, 1]
        status, answer = status_of(running, "POST", "/v1/chat/completions", CHAT)
        assert (status, answer["error"]["message"]) == (503, "The request queue is full.")
        if kind == "llamacpp":
            assert status_of(running, "GET", "/slots")[1] == [{"id": 0, "n_ctx": 262_144, "is_processing": True}]
    running.wait_for(lambda counters: counters["running"] == counters["waiting"] == 0)
    posted(running, "/v1/chat/completions", CHAT)


def test_loras_are_models_on_a_model_with_a_cache_of_their_own() -> None:
    with EngineProcess("base", "alias", lora="tuned", kv_cache_tokens=4_096) as running:
        models = {model["id"]: model for model in json.loads(running.ask("GET", "/v1/models"))["data"]}
        shown = {name: (model["root"], model["parent"], model["max_model_len"]) for name, model in models.items()}
        assert shown == {
            "base": ("base", None, 4_096),
            "alias": ("base", None, 4_096),
            "tuned": ("tuned", "base", None),
        }
        names = ("base", "alias", "tuned", "tuned")
        answers = [posted(running, "/v1/chat/completions", CHAT | {"model": name}) for name in names]
        assert [answer["model"] for answer in answers] == list(names)
        cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 for answer in answers]
        assert cached == [False, True, False, True]
        labels = '{max_lora="1",running_lora_adapters="",waiting_lora_adapters=""}'
        assert running.metrics()[f"vllm:lora_requests_info{labels}"] > 0
        assert status_of(running, "POST", "/v1/chat/completions", CHAT | {"model": "other"})[0] == 404
        # The memory bounds the context, too.
        status, answer = status_of(running, "POST", "/v1/completions", {"model": "base", "prompt": "abcd" * 4_096})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
