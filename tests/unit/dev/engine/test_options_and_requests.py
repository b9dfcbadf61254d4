"""Options in four layers, and the request bodies: what is refused, and how it is named."""

import json
from typing import Any

import msgspec
import pytest

from gateway.dev.engine.behaviour import Behaviour, Control, Overrides, overrides_of_headers
from gateway.dev.engine.errors import EngineError, type_name
from gateway.dev.engine.options import NAME_CHARS_MAX, fault_in_names
from gateway.dev.engine.requests import ChatRequest, CompletionRequest, decode, prompts_of
from gateway.dev.engine.responses_request import ResponsesRequest

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_overrides_replace_only_what_they_name_and_null_goes_back_to_the_start() -> None:
    start = Behaviour(ttft_ms=5, output_tokens=9)
    now = msgspec.json.decode(b'{"ttft_ms": 50, "status": 503}', type=Overrides).over(start, start)
    assert (now.ttft_ms, now.status, now.output_tokens) == (50, 503, 9)
    back = msgspec.json.decode(b'{"ttft_ms": null, "status": null}', type=Overrides).over(now, start)
    assert back == start
    assert Overrides().over(now, start) is now


def test_headers_carry_the_same_options() -> None:
    headers = [(b"x-sim-ttft-ms", b"12.5"), (b"x-sim-no-usage", b"true"), (b"x-sim-status", b"null"), (b"other", b"1")]
    found = overrides_of_headers(headers)
    assert found is not None
    now = found.over(Behaviour(status=500), Behaviour())
    assert (now.ttft_ms, now.no_usage, now.status) == (12.5, True, None)
    assert overrides_of_headers([(b"host", b"x")]) is None


@pytest.mark.parametrize(
    ("name", "value"), [(b"x-sim-teapot", b"1"), (b"x-sim-status", b"200"), (b"x-sim-status", b"x")]
)
def test_a_header_that_means_nothing_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(EngineError) as refused:
        overrides_of_headers([(name, value)])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"statsu": 500}', ("unknown field `statsu`; did you mean `status`? The options are ", "ttft_ms", "times")),
        (b'{"xyz": 1}', ("unknown field `xyz`. The options are ", "retry_after")),
        (b'{"usage": "all"}', ("'all'", "it is one of chunk, finish, none, zero")),
        (b'{"status": 200}', ("Expected `int` >= 400",)),
    ],
)
def test_a_wrong_option_is_told_what_would_be_right(body: bytes, said: tuple[str, ...]) -> None:
    with pytest.raises(EngineError) as refused:
        decode(body, Control)
    for part in said:
        assert part in refused.value.message


def test_only_control_is_told_of_times() -> None:
    in_a_request = json.dumps(CHAT | {"sim": {"times": 2}}).encode()
    for ask in (lambda: overrides_of_headers([(b"x-sim-times", b"2")]), lambda: decode(in_a_request, ChatRequest)):
        with pytest.raises(EngineError) as refused:
            ask()
        assert "the options are ttft_ms, " in refused.value.message.lower()
        assert refused.value.message.count("times") == 1


def test_a_wrong_word_elsewhere_is_not_taken_for_a_wrong_option() -> None:
    with pytest.raises(EngineError) as refused:
        decode(b'{"model": "m", "input": [{"role": "nobody"}]}', ResponsesRequest)
    assert "one of" not in refused.value.message


@pytest.mark.parametrize(
    ("names", "taken", "fault"),
    [
        (["a", "b/c:d e"], [], None),
        (["Größe"], ["a"], None),
        (["n" * NAME_CHARS_MAX], [], None),
        (["a", ""], [], "the name is empty"),
        ([" "], [], "the name is empty"),
        (["a", "a"], [], "the name 'a' is given twice"),
        (["a"], ["a"], "the name 'a' is given twice"),
        (["a\x1b[31m"], [], "the name 'a\\x1b[31m' has a character that cannot be printed"),
        (["a\nb"], [], "the name 'a\\nb' has a character that cannot be printed"),
        (["n" * (NAME_CHARS_MAX + 1)], [], f"has more than {NAME_CHARS_MAX} characters"),
    ],
)
def test_names_that_cannot_be_served_are_told(names: list[str], taken: list[str], fault: str | None) -> None:
    found = fault_in_names(names, taken)
    assert (found is None) if fault is None else (found is not None and fault in found)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages"),
        ({"model": 3}, "model"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"sim": {"teapot": 1}}, "sim"),
        ({"sim": {"status": 200}}, "sim"),
        ({"stream_options": {"include_usage": True}}, None),
    ],
)
def test_a_field_that_does_not_fit_is_named(change: dict[str, Any], param: str | None) -> None:
    with pytest.raises(EngineError) as refused:
        decode(json.dumps(CHAT | change).encode(), ChatRequest)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(EngineError) as refused:
        decode(b'{"messages": [{"role": "user"}]}', ChatRequest)
    assert refused.value.param == "model"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"model": "\xff"}', b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(EngineError) as refused:
        decode(body, ChatRequest)
    assert refused.value.status == 400


def test_unknown_fields_are_ignored() -> None:
    assert decode(json.dumps(CHAT | {"temperature": 1, "new": {"a": 1}}).encode(), ChatRequest).model == "m"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_is_text_texts_ids_or_lists_of_ids(prompt: Any, prompts: list[Any]) -> None:
    request = decode(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest)
    assert prompts_of(request.prompt) == prompts


@pytest.mark.parametrize("prompt", [[], [1, "a"], [-1], [2**32], [[1], 2]])
def test_a_prompt_of_anything_else_is_refused(prompt: Any) -> None:
    with pytest.raises(EngineError):
        prompts_of(decode(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest).prompt)


@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "BadRequestError"), (404, "NotFoundError"), (500, "InternalServerError"), (529, "SimulatedError")],
)
def test_errors_have_the_types_of_vllm(status: int, name: str) -> None:
    assert type_name(status) == name
