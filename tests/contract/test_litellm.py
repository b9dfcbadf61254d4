"""Pools of kind litellm with the real litellm, in front of engines that speak OpenAI's dialect.

The replica runs in an environment of its own. What it bills is compared with what the simulated engine counted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.http import DONE, Http
from tests.support.litellm_stand import ASK_FOR_USAGE, CHAT, HELLO, Stand, litellm_stand, said, tokens
from tests.support.venvs import INSTALL_S_MAX
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

# The first test of a checkout waits for the environment to be made.
pytestmark = pytest.mark.timeout(INSTALL_S_MAX + 120)

CALL_LS = [{"role": "user", "content": 'call ls {"path": "/etc"}'}]
PATHS = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
LS = {"type": "function", "function": {"name": "ls", "description": "Lists a folder.", "parameters": PATHS}}

each_dialect = pytest.mark.parametrize("model", ["vllm", "openai"])
each_way = pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def running(
    servers: ServerAddresses, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with litellm_stand(servers, databases, tmp_path_factory.mktemp("litellm")) as started:
        yield started


@pytest.fixture
def stand(running: Stand) -> Stand:
    running.reset()
    return running


@each_dialect
def test_a_whole_answer_is_billed_as_the_engine_counted_it(stand: Stand, model: str) -> None:
    before = stand.engine.counters()
    answer = stand.http.post(CHAT, {"model": model, "messages": HELLO})
    assert answer.status == 200, answer.body
    after = stand.engine.counters()
    assert answer.document["model"] == model
    assert answer.document["choices"][0]["finish_reason"] == "stop"
    assert answer.document["choices"][0]["message"]["content"]
    counted = [after[name] - before[name] for name in ("prompt_tokens", "generated_tokens")]
    assert [answer.document["usage"][name] for name in ("prompt_tokens", "completion_tokens")] == counted
    prompt, _, completion, coverage = tokens(stand.billed(answer.request_id))
    assert ([prompt, completion], coverage) == (counted, "exact")
    headers = stand.engine.state()["requests"][-1]["headers"]
    assert (headers["authorization"], headers["x-operator"]) == ("Bearer sk-provider", "penstock")


@each_dialect
@pytest.mark.parametrize("usage_wanted", [True, False])
def test_a_stream_says_and_costs_what_the_whole_answer_does(stand: Stand, model: str, *, usage_wanted: bool) -> None:
    whole = stand.http.post(CHAT, {"model": model, "messages": HELLO}).document
    before = stand.engine.counters()
    options = ASK_FOR_USAGE if usage_wanted else {"stream": True}
    with stand.http.stream(CHAT, {"model": model, "messages": HELLO, **options}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        data = list(stream.data())
        request_id = stream.request_id
        assert not stream.cut
    after = stand.engine.counters()
    assert data[-1] == DONE
    chunks = [json.loads(event) for event in data[:-1]]
    assert said(chunks) == whole["choices"][0]["message"]["content"]
    assert {chunk["model"] for chunk in chunks} == {model}
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk] == [8] * usage_wanted
    counted = tuple(after[name] - before[name] for name in ("prompt_tokens", "prefix_cache_hits", "generated_tokens"))
    assert tokens(stand.billed(request_id)) == (*counted, "exact")


@each_dialect
@each_way
def test_what_the_provider_did_not_count_is_billed_as_an_estimate(
    stand: Stand, model: str, options: dict[str, Any]
) -> None:
    """litellm fills in zeros, or counts with a tokenizer of its own: neither is the provider's word."""
    stand.engine.control(no_usage=True)
    answer = stand.http.post(CHAT, {"model": model, "messages": HELLO, **options})
    prompt, _, completion, coverage = tokens(stand.billed(answer.request_id))
    assert prompt > 0
    assert completion > 0
    assert coverage == "estimated"


@each_dialect
def test_tool_calls_come_through(stand: Stand, model: str) -> None:
    asked = {"model": model, "messages": CALL_LS, "tools": [LS]}
    choice = stand.http.post(CHAT, asked).document["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "ls", "arguments": '{"path": "/etc"}'}
    with stand.http.stream(CHAT, {**asked, "stream": True}) as stream:
        chunks = stream.chunks()
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["function"]["name"] == "ls"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"path": "/etc"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@each_dialect
def test_reasoning_comes_through_and_its_tokens_are_not_made_up(stand: Stand, model: str) -> None:
    stand.engine.control(reasoning_tokens=3)
    asked = {"messages": HELLO, **ASK_FOR_USAGE}
    with Http(stand.engine.url).stream(CHAT, {"model": "sim", **asked}) as stream:
        usage = stream.chunks()[-1]["usage"]
    with stand.http.stream(CHAT, {"model": model, **asked}) as stream:
        chunks = stream.chunks()
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert sum("reasoning_content" in delta for delta in deltas) == 3
    assert chunks[-1]["usage"].get("completion_tokens_details") == usage.get("completion_tokens_details")


@each_dialect
def test_several_choices_are_streamed_in_one_piece(stand: Stand, model: str) -> None:
    with stand.http.stream(CHAT, {"model": model, "messages": HELLO, "n": 2, **ASK_FOR_USAGE}) as stream:
        first, last = stream.chunks()
        assert not stream.cut
    assert [choice["finish_reason"] for choice in first["choices"]] == ["stop", "stop"]
    assert all(choice["delta"]["content"] for choice in first["choices"])
    assert last["usage"]["completion_tokens"] == 16


@each_dialect
def test_text_completions_and_embeddings(stand: Stand, model: str) -> None:
    text = stand.http.post("/v1/completions", {"model": model, "prompt": "hello", "max_tokens": 3}).document
    assert (text["object"], text["choices"][0]["finish_reason"]) == ("text_completion", "length")
    asked = {"model": model, "prompt": "hello", "max_tokens": 3, **ASK_FOR_USAGE}
    with stand.http.stream("/v1/completions", asked) as stream:
        first, last = stream.chunks()
    assert first["choices"][0]["text"] == text["choices"][0]["text"]
    assert last["usage"] == text["usage"]
    for encoding, kind in (("float", list), ("base64", str)):
        asked = {"model": model, "input": ["a", "b"], "encoding_format": encoding}
        answer = stand.http.post("/v1/embeddings", asked)
        assert [type(item["embedding"]) for item in answer.document["data"]] == [kind, kind]
        assert stand.billed(answer.request_id)["prompt_tokens"] == answer.document["usage"]["prompt_tokens"]


@each_dialect
@each_way
@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        *((400, 400, "upstream_refused"), (413, 413, "upstream_refused"), (422, 422, "upstream_refused")),
        *((401, 502, "upstream_error"), (404, 502, "upstream_error"), (500, 502, "upstream_error")),
        *((429, 429, "engine_busy"), (503, 502, "upstream_error")),
    ],
)
def test_a_refusal_means_what_it_means_without_litellm(
    stand: Stand, model: str, options: dict[str, Any], status: int, expected: int, code: str
) -> None:
    received = stand.engine.counters()["received"]
    stand.engine.control(status=status, retry_after=7)
    answer = stand.http.post(CHAT, {"model": model, "messages": HELLO, **options})
    assert (answer.status, answer.error["code"]) == (expected, code)
    assert stand.engine.counters()["received"] == received + 1, "nobody but the gateway's router may try again"
    if status == 429:
        assert answer.headers["retry-after"] == "7"
    if expected == status and status != 429:
        assert answer.error["message"] == "a simulated error"


@each_dialect
def test_a_prompt_that_is_too_long_has_the_code_that_agents_compact_on(stand: Stand, model: str) -> None:
    long = [{"role": "user", "content": "word " * 300_000}]
    answer = stand.http.post(CHAT, {"model": model, "messages": long, "stream": True})
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


@each_dialect
def test_a_stream_that_breaks_is_no_end(stand: Stand, model: str) -> None:
    stand.engine.control(abort_after_chunks=3)
    with stand.http.stream(CHAT, {"model": model, "messages": HELLO, "stream": True}) as stream:
        data = list(stream.data())
        assert stream.cut
    assert DONE not in data
    assert "error" in json.loads(data[-1])


@each_dialect
@each_way
def test_a_hang_up_reaches_the_provider_and_is_billed(stand: Stand, model: str, options: dict[str, Any]) -> None:
    stand.engine.control(tokens_per_second=20, output_tokens=400)
    before, billed_before = stand.engine.counters(), len(stand.lines(status="client_closed"))
    body = json.dumps({"model": model, "messages": HELLO, **options}).encode()
    with stand.http.raw() as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {stand.http.key}\r\n"
        connection.send(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        stand.engine.wait_for(lambda now: now["generated_tokens"] >= before["generated_tokens"] + 3)
    stand.engine.wait_for(lambda now: now["aborted"] == before["aborted"] + 1, timeout_s=1.0)
    line = wait_for(lambda: stand.lines(status="client_closed")[billed_before:], "the hang-up is billed")[0]
    assert line["model"] == model
    assert line["completion_tokens"] > 0
    assert line["coverage"] == "estimated"


def test_the_pools_patience_holds(stand: Stand) -> None:
    asked = {"model": "hasty", "messages": HELLO}
    assert stand.http.post(CHAT, asked).status == 200
    aborted = stand.engine.counters()["aborted"]
    stand.engine.control(ttft_ms=60_000)
    for options in ({}, {"stream": True}):
        answer = stand.http.post(CHAT, {**asked, **options})
        assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    stand.engine.control(ttft_ms=None, tokens_per_second=0.1)
    with stand.http.stream(CHAT, {**asked, "stream": True}) as stream:
        assert json.loads(list(stream.data())[-1])["error"]["code"] == "upstream_timeout"
        assert stream.cut
    stand.engine.wait_for(lambda now: now["aborted"] == aborted + 3)


@pytest.mark.parametrize("name", ["api_base", "api_key", "mock_response", "fallbacks", "extra_headers"])
def test_clients_cannot_reach_litellms_own_settings(stand: Stand, name: str) -> None:
    received = stand.engine.counters()["received"]
    answer = stand.http.post(CHAT, {"model": "openai", "messages": HELLO, name: "http://127.0.0.1:1"})
    assert (answer.status, answer.error["param"]) == (400, name)
    assert stand.engine.counters()["received"] == received


def test_nothing_but_the_replicas_own_lines_is_in_its_log(stand: Stand) -> None:
    """litellm prints, warns and logs prompts when it is left alone; a line that is no JSON fails in `log_lines`."""
    stand.engine.control(status=500)
    stand.http.post(CHAT, {"model": "openai", "messages": [{"role": "user", "content": "a secret prompt"}]})
    assert "secret" not in stand.gateway.log.read_text()
    assert [line for line in stand.gateway.log_lines() if line["level"] != "info"] == []
