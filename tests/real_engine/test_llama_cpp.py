"""llama-cpp-python's server: a stream without any usage, one request at a time, and no error once it streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.real_engine.conftest import OUTPUT_MAX, Stand
from tests.real_engine.engines import CONTEXT, LLAMA_CPP
from tests.support.chat import chat, text_of
from tests.support.ledger import all_closed, closed_event

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.parametrize("any_engine", [LLAMA_CPP], indirect=True, ids=["llama_cpp"])

CHAT = "/v1/chat/completions"
ESTIMATE_FACTOR_MAX = 2.0
"""How far the gateway's own count may be from the engine's: in a prompt by bytes, in an answer by deltas."""
LONG = "a prompt that goes on and on " * 12_000
PROSE = (
    "A gateway stands between the clients and the engines. It knows who is calling, holds them to their limits, sends"
    " the request to an engine that has room, and accounts for every token of the answer. "
) * 20


def test_what_a_stream_used_is_counted_by_the_gateway(any_engine: Stand) -> None:
    """The same request, streamed and whole: the engine tells its count only in the whole answer."""
    tenant = any_engine.stack.tenant()
    client = any_engine.stack.gateway.http(tenant.key)
    request = chat(PROSE, model="tiny", max_tokens=200, temperature=0)
    told = client.post(CHAT, request).document["usage"]
    direct = chat(PROSE, model="tiny", max_tokens=5, stream=True, stream_options={"include_usage": True})
    with any_engine.engine.http.stream(CHAT, direct) as past_the_gateway:
        assert not any(chunk.get("usage") for chunk in past_the_gateway.chunks()), "it tells now: trust it"
    with client.stream(CHAT, {**request, "stream": True}) as stream:
        assert text_of(stream.chunks())
    whole, streamed = all_closed(any_engine.stack.dsn, tenant, 2)
    assert (whole["coverage"], streamed["coverage"]) == ("exact", "estimated")
    for name in ("prompt_tokens", "completion_tokens"):
        assert whole[name] == told[name]
        assert told[name] / ESTIMATE_FACTOR_MAX <= streamed[name] <= told[name] * ESTIMATE_FACTOR_MAX, name


def test_a_prompt_that_is_too_long_is_told_as_such(any_engine: Stand) -> None:
    answer = any_engine.stack.client().post(CHAT, chat(LONG, model="tiny", max_tokens=5))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["message"].startswith(f"This model's maximum context length is {CONTEXT} tokens.")
    row = closed_event(any_engine.stack.dsn, answer.request_id)
    assert (row["status"], row["error_code"], row["cost_pico_usd"]) == (
        "upstream_error",
        "context_length_exceeded",
        0,
    )


def test_the_same_in_a_stream_is_an_empty_one_and_no_success(any_engine: Stand) -> None:
    """The engine says 200 and ends its stream without an event: what is wrong is in its log alone."""
    with any_engine.stack.client().stream(CHAT, chat(LONG, model="tiny", max_tokens=5, stream=True)) as stream:
        body = b"".join(stream.pieces())
    assert stream.status == 502
    assert b"without finishing the answer" in body
    row = closed_event(any_engine.stack.dsn, stream.request_id)
    assert (row["status"], row["completion_tokens"], row["cost_pico_usd"]) == ("upstream_error", 0, 0)


def test_a_stream_that_another_request_cut_does_not_end_well(any_engine: Stand) -> None:
    """It serves one request at a time; a second one ends the first with [DONE] and no finish_reason."""
    client = any_engine.stack.client()
    with client.stream(CHAT, chat(model="tiny", stream=True, max_tokens=OUTPUT_MAX)) as stream:
        events = stream.data()
        assert next(events)
        other = any_engine.engine.http.post(CHAT, chat(model="tiny", max_tokens=5))
        rest = list(events)
    assert other.status == 200
    assert '"error"' in rest[-1]
    assert stream.cut
    row = closed_event(any_engine.stack.dsn, stream.request_id)
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")
    assert row["completion_tokens"] > 0
    assert row["cost_pico_usd"] > 0


def test_a_stop_word_ends_a_stream(any_engine: Stand) -> None:
    """With `stop` among what the engine held back, so that the last delta is no token."""
    client = any_engine.stack.client()
    whole = client.post(CHAT, chat(model="tiny", max_tokens=20, temperature=0)).document
    stop = whole["choices"][0]["message"]["content"].split()[1]
    with client.stream(CHAT, chat(model="tiny", max_tokens=20, temperature=0, stop=[stop], stream=True)) as stream:
        chunks = stream.chunks()
    assert list(_reasons(chunks))[-1] == "stop"
    assert stop not in text_of(chunks)


def _reasons(chunks: list[dict[str, Any]]) -> Iterator[str | None]:
    return (choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
