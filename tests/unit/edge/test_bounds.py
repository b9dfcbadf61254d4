"""The longest answer that a caller may have: cut where more is asked for, said where nothing is, as engines want it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import pytest

from gateway.domain.call import OUTPUT_FIELDS, Call, Endpoint
from gateway.domain.config import EngineKind, ModelConfig
from gateway.domain.principal import OutputBound
from gateway.edge.body import parse_call
from gateway.edge.bounds import hold_to
from tests.support.chat import chat, completion, embedding, message, response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUESTS: dict[Endpoint, Callable[..., dict[str, object]]] = {
    Endpoint.CHAT_COMPLETIONS: chat,
    Endpoint.COMPLETIONS: completion,
    Endpoint.MESSAGES: message,
    Endpoint.RESPONSES: response,
    Endpoint.EMBEDDINGS: embedding,
    Endpoint.COUNT_TOKENS: message,
}
VLLM, OPENAI, TGI = EngineKind.VLLM, EngineKind.OPENAI, EngineKind.TGI


def held(
    *bounds: OutputBound,
    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS,
    kinds: tuple[EngineKind, ...] = (VLLM,),
    context: int | None = None,
    output: int | None = None,
    asks: Mapping[str, object] = MappingProxyType({}),
) -> Call:
    """Return a call that is held to these bounds; `asks` are further fields of its body."""
    model = ModelConfig(name="sim", pool="p", upstream="sim", context_tokens=context, output_tokens=output)
    request = REQUESTS[endpoint]()
    request.pop("max_tokens", None)
    body = msgspec.json.encode(request | dict(asks))
    call = parse_call(body, endpoint, {}, {"sim": model}, event_id=UUID(int=0), started_s=0)
    hold_to(bounds, call, kinds)
    return call


def asked(call: Call) -> dict[str, int]:
    """Return how long an answer the engine is asked for, by field."""
    sent = msgspec.json.decode(call.upstream_body("sim"))
    return {name: sent[name] for name in OUTPUT_FIELDS if name in sent}


@pytest.mark.parametrize(
    "endpoint", [Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.MESSAGES, Endpoint.RESPONSES]
)
def test_more_is_cut_in_every_spelling(endpoint: Endpoint) -> None:
    call = held(OutputBound(10), endpoint=endpoint, asks=dict.fromkeys(OUTPUT_FIELDS, 500))
    assert asked(call) == dict.fromkeys(OUTPUT_FIELDS, 10)
    assert call.output_max == 10


def test_less_stays_what_it_is() -> None:
    call = held(OutputBound(10), asks={"max_tokens": 3})
    assert (asked(call), call.output_max) == ({"max_tokens": 3}, 3)


@pytest.mark.parametrize(
    ("endpoint", "kinds", "fields"),
    [
        (Endpoint.CHAT_COMPLETIONS, (VLLM,), {"max_tokens": 40}),
        (Endpoint.CHAT_COMPLETIONS, (OPENAI,), {"max_completion_tokens": 40}),
        (Endpoint.CHAT_COMPLETIONS, (OPENAI, VLLM), {"max_tokens": 40}),
        (Endpoint.COMPLETIONS, (TGI,), {"max_tokens": 40}),
        (Endpoint.COMPLETIONS, (VLLM, TGI), {"max_tokens": 40}),
        (Endpoint.COMPLETIONS, (VLLM, OPENAI), {"max_tokens": 16}),
        (Endpoint.MESSAGES, (VLLM,), {"max_tokens": 40}),
        (Endpoint.RESPONSES, (OPENAI,), {"max_output_tokens": 40}),
    ],
)
def test_where_nothing_is_asked_for_the_bound_is_said(
    endpoint: Endpoint, kinds: tuple[EngineKind, ...], fields: dict[str, int]
) -> None:
    for nothing in ({}, dict.fromkeys(fields)):
        call = held(OutputBound(40), endpoint=endpoint, kinds=kinds, asks=nothing)
        assert (asked(call), call.output_max) == (fields, *fields.values())


def test_an_engine_that_does_not_know_the_newer_field_gets_the_older_one_too() -> None:
    wish = {"max_completion_tokens": 30}
    assert asked(held(OutputBound(40), asks=wish)) == wish
    assert asked(held(OutputBound(40), kinds=(TGI,), asks=wish)) == wish | {"max_tokens": 30}


def test_the_tightest_bound_for_the_model_counts() -> None:
    bounds = OutputBound(50), OutputBound(40, "sim"), OutputBound(1, "other")
    assert asked(held(*bounds)) == {"max_tokens": 40}
    assert asked(held(*bounds, output=30)) == {"max_tokens": 30}, "the model's own bound is tighter"
    assert asked(held(OutputBound(1, "other"))) == {}
    brief = held(*bounds, endpoint=Endpoint.COMPLETIONS, output=9)
    assert (asked(brief), brief.output_max) == ({"max_tokens": 9}, 9)


def test_a_bound_that_the_context_keeps_anyway_is_not_said() -> None:
    call = held(OutputBound(1000), context=1000)
    assert (asked(call), call.output_max) == ({}, 1000)
    assert asked(held(OutputBound(999), context=1000)) == {"max_tokens": 999}


@pytest.mark.parametrize("endpoint", [Endpoint.EMBEDDINGS, Endpoint.COUNT_TOKENS])
def test_what_generates_nothing_is_left_alone(endpoint: Endpoint) -> None:
    call = held(OutputBound(1), endpoint=endpoint)
    assert (asked(call), call.output_max) == ({}, None)
