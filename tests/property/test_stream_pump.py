"""A stream on its way through: however it is cut, every event arrives once, and nothing changes but the name."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.relay.meter import Meter
from gateway.relay.sse import EventSplitter, data_of
from gateway.relay.stream_pump import StreamPump
from gateway.relay.wire import read_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

ASKED = 'asked "name"'
ENGINE = "org/engine-model"
DONE = b"data: [DONE]\n\n"

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

names = st.sampled_from([ENGINE, ENGINE, ENGINE, ASKED, "other"])
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ['"model":"org/engine-model"', '{"model": "x"}', "\n\n", "data: x", "[DONE]", "\r", '\\"', "error"]
    ),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(texts, st.just("model")), inner, max_size=3)
    ),
    max_leaves=8,
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": st.one_of(st.none(), texts),
        "reasoning_content": texts,
        "model": st.just(ENGINE),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 3)},
                optional={"function": st.fixed_dictionaries({"arguments": texts, "model": st.just(ENGINE)})},
            ),
            max_size=2,
        ),
        "x": json_values,
    },
)
choices = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "delta": deltas, "finish_reason": st.sampled_from([None, "stop", "tool_calls"])},
        optional={"logprobs": json_values},
    ),
    max_size=2,
)
counts = st.one_of(st.none(), st.integers(-5, 10**13))
usages = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"prompt_tokens": counts, "completion_tokens": counts},
        optional={"prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": counts})},
    ),
)
chunks = st.one_of(
    st.fixed_dictionaries(
        {"id": texts, "choices": choices, "model": names}, optional={"usage": usages, "x-vendor": json_values}
    ),
    st.fixed_dictionaries({"model": names, "choices": choices}),
    st.fixed_dictionaries({"choices": st.just([]), "usage": usages, "model": names}),
    st.dictionaries(st.sampled_from(["a", "choices", "usage", "model"]), json_values, max_size=3),
).flatmap(lambda chunk: st.permutations(list(chunk.items())).map(dict) if len(chunk) < 4 else st.just(chunk))


class Written(NamedTuple):
    """One event as an engine writes it, and the document in it; `document` is None when it holds none."""

    event: bytes
    document: bytes | None


@st.composite
def written(draw: st.DrawFn) -> Written:
    """Return an event in one of the many ways to write it."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return Written(draw(st.sampled_from([b": ping\n\n", b"event: note\n\n", b"data: [1, 2]\n\n", b"\n"])), None)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    indent = draw(st.sampled_from([None, None, None, None, 1]))
    document = json.dumps(draw(chunks), separators=separators, indent=indent, ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "replace"
    )
    end = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"]))
    before = draw(st.sampled_from([b"", b"", b"", b"id: 7", b"event: message"]))
    start = draw(st.sampled_from([b"data: ", b"data: ", b"data:"]))
    lines = [before] * bool(before) + [start + line for line in document.split(b"\n")]
    return Written(b"".join(line + end for line in lines) + end, document)


class Passed(NamedTuple):
    """What came of a stream: the client's bytes, and all that the meter and the pump took note of."""

    out: bytes
    done: bool
    failure: bytes | None
    completion_tokens: int
    usage: object
    finished: bool
    consistent: bool


def passed(pieces: Iterable[bytes], *, usage_wanted: bool = True) -> Passed:
    """Send a stream in these pieces through a pump."""
    meter = Meter(1)
    pump = StreamPump(ASKED, meter, usage_wanted=usage_wanted)
    out = b"".join([pump.feed(piece, 1.0) for piece in pieces]) + pump.finish(2.0)
    return Passed(out, pump.done, pump.failure, meter.completion_tokens, meter._usage, meter.finished, meter.consistent)


def documents(stream: bytes) -> list[bytes]:
    """Return the JSON objects in a stream's events."""
    splitter = EventSplitter()
    datas = [data_of(event) for event in [*splitter.feed(stream + b":"), splitter.finish()]]
    return [data for data in datas if re.match(rb"\s*\{", data)]


def twice(*several: bytes) -> list[Written]:
    """Return a stream of these documents, each of which comes twice."""
    return [Written(b"data: %b\n\n" % document, document) for document in several for _ in range(2)]


streams = st.lists(written(), max_size=8)


@given(streams, st.booleans(), st.booleans(), st.data())
def test_cuts_anywhere_change_nothing(events: list[Written], done: bool, wanted: bool, draw: st.DataObject) -> None:  # noqa: FBT001 - hypothesis passes by position
    stream = b"".join(each.event for each in events) + (DONE if done else b"")
    whole = passed([stream], usage_wanted=wanted)
    cuts = draw.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    pieces = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    assert passed(pieces, usage_wanted=wanted) == whole
    assert passed([stream[at : at + 1] for at in range(len(stream))], usage_wanted=wanted) == whole
    assert whole.done == done
    assert b"[DONE]" not in [data_of(event) for event in EventSplitter().feed(whole.out)]


@given(streams)
@example(twice(b'{"model":12,"choices":[]}', b'{"model":123,"choices":[]}'))
@example(twice(b'{"x":"model","y":"b","model":"b"}'))
@example(twice(b'{"model":"a","y":"b","model":"b"}', b'{"model":"a","y":"b","model":"b","z":1}'))
@example(twice(b'{"model":"a\\"b","model":"b"}', b'{"model":"a\\"b","z":1}'))
def test_nothing_changes_but_the_models_name(events: list[Written]) -> None:
    """Every other field keeps its bytes and its place, and so do all events without a document."""
    out = passed([each.event for each in events]).out
    sent, got = documents(b"".join(each.event for each in events)), documents(out)
    assert len(got) == len(sent)
    for before, after in zip(sent, got, strict=True):
        was, became = _fields(before), _fields(after)
        assert list(was) == list(became)
        assert {name: bytes(raw) for name, raw in was.items() if name != "model"} == {
            name: bytes(raw) for name, raw in became.items() if name != "model"
        }
        if "model" in was:
            assert msgspec.json.decode(became["model"]) == ASKED


@given(st.lists(written(), max_size=8), st.sampled_from([None, "error"]))
def test_what_needs_no_change_is_passed_as_it_came(events: list[Written], error: str | None) -> None:
    """Events that name the model as the client did, or not at all, are the same bytes, line ends and all."""
    kept = [
        each
        for each in events
        if each.event.strip()
        and not each.event.startswith(b":")
        and (each.document is None or _is_named(each.document))
    ]
    failure = b'data: {"error": {"message": "x"}}\n\n' if error else b""
    result = passed([b"".join(each.event for each in kept) + failure + DONE])
    assert result.out == b"".join(each.event for each in kept)
    assert (result.failure is None) == (error is None)


@given(streams)
def test_the_usage_chunk_reaches_only_who_asked(events: list[Written]) -> None:
    stream = [each.event for each in events]
    asked, unasked = passed(stream, usage_wanted=True), passed(stream, usage_wanted=False)
    assert asked._replace(out=b"") == unasked._replace(out=b""), "the meter counts the same"
    rest = [data for data in documents(asked.out) if not _is_usage_only(data)]
    assert [_fields(data) for data in documents(unasked.out)] == [_fields(data) for data in rest]


def _is_named(document: bytes) -> bool:
    named = _fields(document).get("model")
    return named is None or bytes(named) == msgspec.json.encode(ASKED)


def _is_usage_only(document: bytes) -> bool:
    answer = read_answer(document)
    return answer is not None and answer.usage is not None and not answer.choices


def test_a_stream_that_ends_without_its_last_line_end_is_read_to_its_end() -> None:
    event: dict[str, Any] = {"model": ENGINE, "choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}
    result = passed([b"data: " + msgspec.json.encode(event)])
    assert documents(result.out) == [msgspec.json.encode(event | {"model": ASKED})]
    assert (result.completion_tokens, result.finished) == (1, True)


@given(streams, st.sampled_from([b"no JSON", b"{", b"[1,"]))
def test_what_is_no_json_ends_the_stream_as_a_failure(events: list[Written], garbage: bytes) -> None:
    before = passed([each.event for each in events])
    result = passed(
        [*(each.event for each in events), b"data: %b\n\n" % garbage, *(each.event for each in events), DONE]
    )
    assert documents(result.out) == documents(before.out)
    assert (result.failure, result.done) == (garbage, False)
