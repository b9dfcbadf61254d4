"""`transformers serve`: usage on the chunk with the finish_reason, no [DONE], no list of models without a network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.real_engine.engines import TRANSFORMERS
from tests.support.chat import chat, embedding
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event

if TYPE_CHECKING:
    from tests.real_engine.conftest import Stand

pytestmark = pytest.mark.parametrize("any_engine", [TRANSFORMERS], indirect=True, ids=["transformers"])

CHAT = "/v1/chat/completions"


def test_a_stream_without_done_is_ended_and_exact(any_engine: Stand) -> None:
    """Side by side: the engine's own end, and what the gateway makes of it."""
    tenant = any_engine.stack.tenant()
    direct = chat(model=any_engine.engine.upstream, max_tokens=30, stream=True)
    with any_engine.engine.http.stream(CHAT, direct) as past_the_gateway:
        own = list(past_the_gateway.data())
    last = json.loads(own[-1])
    assert DONE not in own
    assert (last["choices"][0]["finish_reason"], last["usage"]["completion_tokens"]) == ("length", 30)

    with any_engine.stack.gateway.http(tenant.key).stream(
        CHAT, chat(model="tiny", max_tokens=30, stream=True)
    ) as stream:
        data = list(stream.data())
    assert data[-1] == DONE
    assert json.loads(data[-2])["usage"] == last["usage"]
    (row,) = all_closed(any_engine.stack.dsn, tenant, 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (last["usage"]["prompt_tokens"], 30)
    assert (row["status"], row["coverage"]) == ("ok", "exact")


def test_models_are_listed_though_the_engine_cannot(any_engine: Stand) -> None:
    assert any_engine.engine.http.get("/v1/models").status == 500
    answer = any_engine.stack.client().get("/v1/models")
    assert {model["id"] for model in answer.document["data"]} == {"tiny", "brief"}


def test_a_field_that_it_does_not_know_is_refused_with_its_words(any_engine: Stand) -> None:
    answer = any_engine.stack.client().post(CHAT, chat(model="tiny", max_tokens=5, top_k=3))
    assert answer.status == 422
    assert answer.error["message"] == "Unexpected fields in the request: {'top_k'}"
    row = closed_event(any_engine.stack.dsn, answer.request_id)
    assert (row["status"], row["prompt_tokens"], row["cost_pico_usd"]) == ("upstream_error", 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_value_that_it_stumbles_over_is_its_failure(any_engine: Stand, stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    answer = any_engine.stack.client().post(CHAT, chat(model="tiny", max_tokens=5, temperature="hot", stream=stream))
    assert (answer.status, answer.error["message"]) == (502, "the engine failed with status 500")


def test_an_endpoint_that_it_does_not_have(any_engine: Stand) -> None:
    answer = any_engine.stack.client().post("/v1/embeddings", embedding(model="tiny"))
    assert answer.status == 502
