"""Usage of every kind that engines send, or do not send, and what the ledger makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat import ENDPOINTS, chat, completion, embedding, finished
from tests.support.ledger import closed_event, cost_at
from tests.support.scripted import ScriptedEngine, json_script, stream_script
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

PRICE = {"input": "0.2", "cached_input": "0.02", "output": "0.8", "reasoning": "1.7"}
MODELS = {
    "coder": {"pool": "gpu", "upstream": "sim", "price": PRICE},
    "odd": {"pool": "scripted", "upstream": "sim", "price": PRICE},
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
    """One replica before the simulated and the scripted engine."""
    config = {"models": MODELS, "pools": {"scripted": {"engine": "openai", "endpoints": [scripted.url]}}}
    with running_stack(databases, servers, tmp_path_factory.mktemp("usage"), config=config) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Http:
    """A client with a key without limits."""
    return stack.client()


def test_without_usage_a_stream_is_counted_by_its_pieces(stack: Stack, client: Http) -> None:
    request = chat(model="coder", stream=True, sim={"no_usage": True, "output_tokens": 41})
    row = closed_event(stack.dsn, finished(client, "/v1/chat/completions", request))
    assert (row["coverage"], row["status"]) == ("estimated", "ok")
    assert row["completion_tokens"] == 40, "all but the end token, which nobody sees"
    assert row["prompt_tokens"] > 0
    assert row["cost_pico_usd"] == cost_at(PRICE, row)


@pytest.mark.parametrize("request_of", [chat, completion])
@pytest.mark.parametrize("done", [True, False])
def test_who_asks_for_usage_is_told_the_gateways_count(
    stack: Stack, client: Http, scripted: ScriptedEngine, request_of: Callable[..., dict[str, Any]], *, done: bool
) -> None:
    """Some engines stream no usage at all: a client that shows or bills tokens gets what the ledger holds."""
    events = [chunk({"content": "hi"}, usage=None), chunk({"content": " there"}), chunk({}, "stop")]
    scripted.script = stream_script(*events, *(["[DONE]"] if done else []))
    path = "/v1/chat/completions" if request_of is chat else "/v1/completions"
    request = request_of(model="odd", stream=True)
    with client.stream(path, {**request, "stream_options": {"include_usage": True}}) as stream:
        *chunks, told = stream.chunks()
    row = closed_event(stack.dsn, stream.request_id)
    usage = {"prompt_tokens": row["prompt_tokens"], "completion_tokens": 2, "total_tokens": row["prompt_tokens"] + 2}
    assert told == {**chunk({}), "model": "odd", "choices": [], "usage": usage}
    assert (row["completion_tokens"], row["coverage"], len(chunks)) == (2, "estimated", 3)
    assert row["prompt_tokens"] > 0

    with client.stream(path, request) as stream:
        assert len(stream.chunks()) == 3, "nobody asked"


def test_without_usage_a_whole_answer_is_estimated_by_its_length(stack: Stack, client: Http) -> None:
    request = chat(model="coder", sim={"no_usage": True, "output_tokens": 101})
    row = closed_event(stack.dsn, finished(client, "/v1/chat/completions", request))
    assert (row["coverage"], row["status"]) == ("estimated", "ok")
    assert row["completion_tokens"] == 100, "four bytes a token"
    assert row["prompt_tokens"] > 0


def test_without_usage_embeddings_are_estimated(stack: Stack, client: Http) -> None:
    request = ENDPOINTS["embeddings"]("some text", model="coder", sim={"no_usage": True})
    row = closed_event(stack.dsn, finished(client, "/v1/embeddings", request))
    assert (row["coverage"], row["completion_tokens"]) == ("estimated", 0)
    assert row["prompt_tokens"] > 0


def whole(usage: object) -> dict[str, Any]:
    """Return a scripted chat completion with this usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "model": "sim", "choices": [choice], "usage": usage}


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a scripted chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "sim", "choices": [choice], **fields}


@pytest.mark.parametrize("streamed", [False, True])
def test_cached_tokens_of_a_text_completion_are_counted_and_priced(
    stack: Stack, client: Http, *, streamed: bool
) -> None:
    request = completion(f"{streamed} " + "word " * 200, model="coder", stream=streamed)
    first, second = (closed_event(stack.dsn, finished(client, "/v1/completions", request)) for _ in range(2))
    assert (first["cached_tokens"], first["coverage"]) == (0, "exact")
    assert second["prompt_tokens"] == first["prompt_tokens"]
    assert second["prompt_tokens"] - 16 <= second["cached_tokens"] <= second["prompt_tokens"]
    assert second["cost_pico_usd"] == cost_at(PRICE, second)


def test_cached_tokens_of_an_embedding_are_counted_and_priced(
    stack: Stack, client: Http, scripted: ScriptedEngine
) -> None:
    usage = {"prompt_tokens": 9, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    vector = {"index": 0, "object": "embedding", "embedding": [1.0]}
    scripted.script = json_script({"object": "list", "model": "sim", "data": [vector], "usage": usage})
    row = closed_event(stack.dsn, finished(client, "/v1/embeddings", embedding(model="odd")))
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (9, 4, 0)
    assert (row["coverage"], row["cost_pico_usd"]) == ("exact", cost_at(PRICE, row))


USAGES = [
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (0, 0, 0, 0)),
    ({"prompt_tokens": 7, "completion_tokens": 0}, (7, 0, 0, 0)),
    ({"prompt_tokens": 7, "total_tokens": 7}, (7, 0, 0, 0)),
    ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": None}, (9, 0, 8, 0)),
    ({"prompt_tokens": 9.0, "completion_tokens": "8"}, (9, 0, 8, 0)),
    (
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
        (9, 4, 8, 5),
    ),
    ({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 99}}, (9, 9, 8, 0)),
]


@pytest.mark.parametrize(("usage", "tokens"), USAGES)
@pytest.mark.parametrize("streamed", [False, True])
def test_usage_counts_as_the_engine_states_it(
    stack: Stack,
    client: Http,
    scripted: ScriptedEngine,
    usage: dict[str, Any],
    tokens: tuple[int, int, int, int],
    *,
    streamed: bool,
) -> None:
    """An explicit zero is a zero, and a part is never more than the whole."""
    ending = chunk({}, "stop", usage=usage)
    scripted.script = (
        stream_script(chunk({"content": "hi"}), ending, "[DONE]") if streamed else json_script(whole(usage))
    )
    row = closed_event(stack.dsn, finished(client, "/v1/chat/completions", chat(model="odd", stream=streamed)))
    found = (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"], row["reasoning_tokens"])
    assert found == tokens
    assert row["coverage"] == "exact"
    assert row["cost_pico_usd"] == cost_at(PRICE, row)


@pytest.mark.parametrize("usage", [None, {}, "many", {"prompt_tokens": "x"}, {"completion_tokens": 3}, [1]], ids=str)
@pytest.mark.parametrize("streamed", [False, True])
def test_usage_that_says_nothing_is_estimated(
    stack: Stack, client: Http, scripted: ScriptedEngine, usage: object, *, streamed: bool
) -> None:
    ending = chunk({}, "stop", usage=usage)
    scripted.script = (
        stream_script(chunk({"content": "hi"}), ending, "[DONE]") if streamed else json_script(whole(usage))
    )
    row = closed_event(stack.dsn, finished(client, "/v1/chat/completions", chat(model="odd", stream=streamed)))
    assert (row["coverage"], row["status"]) == ("estimated", "ok")
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] > 0
