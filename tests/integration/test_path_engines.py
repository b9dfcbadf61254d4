"""Engines that refuse, break off, fall silent or talk nonsense, and what reaches the client and the ledger of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import chat, finished, text_of
from tests.support.engine import EngineProcess
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event
from tests.support.refusals import assert_refused
from tests.support.scripted import Script, ScriptedEngine, json_script, stream_script
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
CONTEXT = 600
MODELS = {
    "sim": {"pool": "gpu", "price": {"input": "1", "output": "2"}},
    "hasty": {"pool": "hasty", "upstream": "sim"},
    "odd": {"pool": "scripted", "upstream": "sim"},
}


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedEngine]:
    """The engine behind the model `odd`."""
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def stack(
    databases: Databases,
    servers: ServerAddresses,
    tmp_path_factory: pytest.TempPathFactory,
    scripted: ScriptedEngine,
) -> Iterator[Stack]:
    """One replica before two simulated engines, one of them with little patience before it, and a scripted one."""
    with EngineProcess("sim") as slow:
        timeouts = {"first_byte_s": 0.4, "idle_s": 0.4, "total_s": 1.5}
        pools: dict[str, Any] = {
            "hasty": {"engine": "vllm", "endpoints": [slow.url], "timeouts": timeouts},
            "scripted": {"engine": "openai", "endpoints": [scripted.url]},
        }
        with running_stack(
            databases,
            servers,
            tmp_path_factory.mktemp("engines"),
            engines=[EngineProcess("sim", max_model_len=CONTEXT)],
            config={"models": MODELS, "pools": pools},
        ) as running:
            yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


def assert_relayed(answer: Answer, code: str, param: str | None) -> None:
    """Assert that an engine's own refusal came through, and that it will not be tried again."""
    assert_refused(answer, 400, code, param)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_that_is_too_long_comes_back_with_the_code_that_agents_compact_on(
    stack: Stack, *, streamed: bool
) -> None:
    tenant = stack.tenant()
    answer = stack.gateway.http(tenant.key).post(CHAT, chat("word " * 2 * CONTEXT, max_tokens=1, stream=streamed))
    assert_relayed(answer, "context_length_exceeded", "messages")
    (row,) = all_closed(stack.dsn, tenant, 1)
    assert (row["status"], row["attempts"], row["http_status"]) == ("upstream_error", 1, 400)
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_pico_usd"]) == (0, 0, 0)


def test_an_engines_complaint_about_a_field_comes_back(client: Http) -> None:
    assert_relayed(client.post(CHAT, chat(stop=5)), "upstream_refused", "stop")


def test_a_request_has_a_time_in_all(stack: Stack, client: Http) -> None:
    request = chat(model="hasty", stream=True, sim={"tokens_per_second": 10, "output_tokens": 1000})
    with client.stream(CHAT, request) as stream:
        events = list(stream.data())
    assert stream.cut
    assert json.loads(events[-1])["error"]["code"] == "upstream_timeout"
    row = closed_event(stack.dsn, stream.request_id)
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")
    assert 5 <= row["completion_tokens"] <= 16


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk as an engine sends it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "sim", "choices": [choice], **fields}


HELLO, END = chunk({"content": "hello"}), chunk({}, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

BROKEN = {
    "no finish_reason": stream_script(HELLO, "[DONE]"),
    "nothing after a piece": stream_script(HELLO),
    "nothing at all": stream_script(),
    "only [DONE]": stream_script("[DONE]"),
    "cut before the end": stream_script(HELLO, whole=False),
    "cut in an event": stream_script(HELLO, b'data: {"id": "c", "cho', whole=False),
    "an error in the stream": stream_script(HELLO, {"error": {"message": "CUDA out of memory", "code": 500}}),
    "an error at once": stream_script({"error": {"message": "boom", "type": "InternalServerError", "code": 500}}),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_a_stream_without_a_proper_end_never_ends_properly(
    stack: Stack, client: Http, scripted: ScriptedEngine, script: Script
) -> None:
    scripted.script = script
    with client.stream(CHAT, chat(model="odd", stream=True)) as stream:
        text = b"".join(stream.pieces()).decode()
    assert "[DONE]" not in text
    error = json.loads(text.strip().rpartition("data: ")[2])["error"]
    assert (error["type"], error["code"]) == ("server_error", "upstream_error")
    assert stream.cut == (stream.status == 200)
    assert "CUDA" not in text
    row = closed_event(stack.dsn, stream.request_id)
    assert (row["status"], row["completion_tokens"]) == ("upstream_error", 1 if "hello" in text else 0)


GOOD = {
    "as it should be": stream_script(HELLO, END, "[DONE]"),
    "without [DONE]": stream_script(HELLO, END),
    "usage on the last chunk, no [DONE]": stream_script(HELLO, chunk({}, "stop", usage=USAGE)),
    "carriage returns": stream_script(
        b"data: %b\r\n\r\n" % json.dumps(HELLO).encode(), b"data: %b\r\n\r\n" % json.dumps(END).encode()
    ),
    "a byte at a time": Script(
        tuple(bytes([byte]) for piece in stream_script(HELLO, END, "[DONE]").pieces for byte in piece),
        headers={"content-type": "text/event-stream"},
    ),
    "all in one piece": Script(
        (b"".join(stream_script(HELLO, END, "[DONE]").pieces),), headers={"content-type": "Text/Event-Stream"}
    ),
    "comments between": stream_script(b": ping\n\n", HELLO, b": ping\n\n", END, "[DONE]"),
    "no blank line at the end": stream_script(HELLO, b"data: " + json.dumps(END).encode()),
    "more after [DONE]": stream_script(HELLO, END, "[DONE]", HELLO),
    "fields of its own": stream_script(b"id: 1\nevent: message\ndata: %b\n\n" % json.dumps(HELLO).encode(), END),
}


@pytest.mark.parametrize("script", GOOD.values(), ids=GOOD)
def test_streams_that_end_are_whole_however_they_come(client: Http, scripted: ScriptedEngine, script: Script) -> None:
    scripted.script = script
    with client.stream(CHAT, chat(model="odd", stream=True)) as stream:
        *events, last = stream.data()
    assert (last, stream.cut) == (DONE, False)
    chunks = [json.loads(event) for event in events]
    assert text_of(chunks) == "hello"
    assert {one["model"] for one in chunks} == {"odd"}
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, "stop"]


@pytest.mark.parametrize("name", ["sim", "Vendor/Other-Model", 'q"uote', "x"])
def test_the_name_is_restored_wherever_it_stands_and_nothing_else_is(
    client: Http, scripted: ScriptedEngine, name: str
) -> None:
    inner = {"model": name, "note": f'"model":"{name}"'}
    chunks = [
        {"note": {"model": name}, **HELLO, "model": name, "vendor": [1.50, 10**25, None, "\u00fc\u2028"]},
        {**HELLO, "model": name, "inner": inner},
        {"model": name, **{key: value for key, value in END.items() if key != "model"}},
    ]
    scripted.script = stream_script(*chunks, "[DONE]")
    with client.stream(CHAT, chat(model="odd", stream=True)) as stream:
        assert stream.chunks() == [{**one, "model": "odd"} for one in chunks]
    whole = {"note": {"model": name}, "model": name, "choices": [], "vendor": inner, "usage": USAGE}
    scripted.script = json_script(whole)
    assert client.post(CHAT, chat(model="odd")).document == {**whole, "model": "odd"}


def test_an_answer_that_needs_no_change_is_passed_byte_by_byte(client: Http, scripted: ScriptedEngine) -> None:
    body = b'{ "model" :"odd",  "n": 1.50, "big": 12345678901234567890123, "u": "\\u00fc", "usage": null }\n'
    scripted.script = json_script(body)
    assert client.post(CHAT, chat(model="odd")).body == body
    event = b'data: {"model":"odd", "n": 1.50, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    scripted.script = stream_script(event, "[DONE]")
    with client.stream(CHAT, chat(model="odd", stream=True)) as stream:
        assert b"".join(stream.pieces()) == event + b"data: [DONE]\n\n"


NONSENSE = {
    "text": Script((b"hello",), headers={"content-type": "text/plain"}),
    "nothing": Script((), headers={"content-type": "application/json"}),
    "a list": json_script([1]),
    "half an object": json_script(b'{"model": "sim", "choi'),
    "an error with 200": json_script({"error": {"message": "no", "code": 500}}),
    "a page": Script((b"<html>502</html>",), 502, {"content-type": "text/html"}),
    "a redirect": Script((), 302, {"location": "http://127.0.0.1:9/"}),
    "a strange status": json_script({}, 299),
}


@pytest.mark.parametrize("script", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("streamed", [False, True])
def test_nonsense_is_a_bad_gateway(
    stack: Stack, client: Http, scripted: ScriptedEngine, script: Script, *, streamed: bool
) -> None:
    scripted.script = script
    answer = client.post(CHAT, chat(model="odd", stream=streamed))
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert closed_event(stack.dsn, answer.request_id)["status"] == "upstream_error"


@pytest.mark.parametrize("message", ["rate limit of 500", "try again later", "the server is overloaded (429)"])
@pytest.mark.parametrize("shape", ["openai", "text", "fastapi", "bare"])
def test_a_refusal_with_words_that_clients_retry_on_is_told_in_other_words(
    client: Http, scripted: ScriptedEngine, message: str, shape: str
) -> None:
    bodies = {
        "openai": {"error": {"message": message, "type": "invalid_request_error", "code": "bad", "param": "stop"}},
        "text": {"error": message},
        "fastapi": {"detail": message},
        "bare": {"object": "error", "message": message, "code": 400},
    }
    scripted.script = json_script(bodies[shape], 400)
    answer = client.post(CHAT, chat(model="odd"))
    assert_refused(
        answer, 400, "bad" if shape == "openai" else "upstream_refused", "stop" if shape == "openai" else None
    )
    assert message in answer.headers["x-penstock-error-detail"]


def test_a_connection_is_used_again(stack: Stack, client: Http, scripted: ScriptedEngine) -> None:
    scripted.script = stream_script(HELLO, END, "[DONE]")
    for _ in range(3):
        finished(client, CHAT, chat(model="odd", stream=True))
    assert len(set(scripted.ports[-3:])) == 1
