"""Whatever a client sends: it is refused by name, or gateway and engine read one and the same request."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.domain.call import OUTPUT_FIELDS, Call, Endpoint
from gateway.domain.config import GatewayConfig, ModelConfig
from gateway.edge.body import OWNED, Disconnected, parse_call, read_body
from gateway.edge.bounds import CHOICES_MAX, OUTPUT_TOKENS_MAX
from gateway.errors import BodyTooLarge, GatewayError, InvalidRequest
from gateway.units import new_event_id

if TYPE_CHECKING:
    from gateway.edge.asgi import Message

OUTPUT_MAX = 500
UPSTREAM = "org/engine-model"
MODELS = GatewayConfig.of(
    [],
    [
        ModelConfig(name="capped", pool="p", upstream=UPSTREAM, aliases=("alias",), output_tokens=OUTPUT_MAX),
        ModelConfig(name="free", pool="p", upstream=UPSTREAM),
    ],
).by_name
# What a client may write for a letter, where an engine does not care about case, or folds as Unicode says.
SPELLINGS = {"s": "sS\N{LATIN SMALL LETTER LONG S}", "k": "kK\N{KELVIN SIGN}"}

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

endpoints = st.sampled_from(Endpoint)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
likely = {
    "model": st.sampled_from(["capped", "free", "alias"]),
    "messages": st.lists(json_values, max_size=2),
    "prompt": st.one_of(st.text(), st.lists(st.text(), max_size=2)),
    "input": st.one_of(st.text(), st.lists(st.integers(), max_size=2)),
    "stream": st.one_of(st.none(), st.booleans()),
    "stream_options": st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "include_usage": st.one_of(st.none(), st.booleans()),
                "continuous_usage_stats": st.booleans(),
                "x": json_values,
            },
        ),
    ),
    "n": st.one_of(st.none(), st.integers(1, CHOICES_MAX // 2)),
    "max_tokens": st.one_of(st.none(), st.integers(0, 10_000)),
    "max_completion_tokens": st.one_of(st.none(), st.integers(0, 10_000)),
    "max_output_tokens": st.one_of(st.none(), st.integers(0, 10_000)),
    "store": st.one_of(st.none(), st.booleans()),
    "background": st.sampled_from([None, False]),
}
BOUNDS = {
    Endpoint.CHAT_COMPLETIONS: ("max_tokens", "max_completion_tokens"),
    Endpoint.COMPLETIONS: ("max_tokens", "max_completion_tokens"),
    Endpoint.MESSAGES: ("max_tokens",),
    Endpoint.RESPONSES: ("max_output_tokens",),
}
COMPLETIONS = (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)
"""Those that have `n` and `stream_options`."""
foreign_names = st.one_of(
    st.text(max_size=6), st.sampled_from(["tools", "temperature", "prompt_cache_key", "seed", "Model", "Stream", "N"])
)
good_pairs = st.tuples(
    st.fixed_dictionaries(
        {name: likely[name] for name in ("model", "messages", "prompt", "input")},
        optional={
            name: values for name, values in likely.items() if name not in ("model", "messages", "prompt", "input")
        },
    ),
    st.dictionaries(foreign_names.filter(lambda name: name.casefold() not in OWNED), json_values, max_size=4),
).flatmap(lambda both: st.permutations([*both[0].items(), *both[1].items()]))
any_pairs = st.lists(st.tuples(st.one_of(st.sampled_from(sorted(OWNED)), foreign_names), json_values), max_size=8)


def written(pairs: list[tuple[str, Any]], indent: int | None = None) -> bytes:
    """Return an object with these members, in this order, doubled ones too."""
    members = ", ".join(f"{json.dumps(name)}: {json.dumps(value, indent=indent)}" for name, value in pairs)
    return f"{{{members}}}".encode()


def parse(body: bytes, endpoint: Endpoint, headers: dict[bytes, bytes] | None = None) -> Call:
    """Parse `body` as the path does."""
    return parse_call(body, endpoint, headers or {}, MODELS, event_id=new_event_id(), started_s=0.0)


def tried(body: bytes, endpoint: Endpoint, headers: dict[bytes, bytes] | None = None) -> Call | GatewayError:
    """Return the call, or what it is refused with."""
    try:
        return parse(body, endpoint, headers)
    except GatewayError as refused:
        return refused


@given(st.binary(max_size=60), endpoints)
@example(b"", Endpoint.EMBEDDINGS)
@example(b"[" * 100_000, Endpoint.CHAT_COMPLETIONS)
@example(b'{"messages":' * 100_000, Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"free","messages":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"\\ud800","messages":[]}', Endpoint.CHAT_COMPLETIONS)
@example(b'{"\\ud800":1}', Endpoint.CHAT_COMPLETIONS)
@example(b'{"\xff":1}', Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"\xff","messages":[]}', Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"free","messages":[],"n":1e999}', Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"free","messages":[],"max_tokens":' + b"9" * 10_000 + b"}", Endpoint.CHAT_COMPLETIONS)
@example(b'{"model":"free","messages":[]} {}', Endpoint.CHAT_COMPLETIONS)
@example(b'\xef\xbb\xbf{"model":"free","messages":[]}', Endpoint.CHAT_COMPLETIONS)
def test_bytes_that_are_no_request_are_refused(body: bytes, endpoint: Endpoint) -> None:
    with pytest.raises(GatewayError) as refused:
        parse(body, endpoint)
    assert 400 <= refused.value.status < 500


@given(any_pairs, endpoints, st.dictionaries(st.sampled_from([b"x-session-id", b"x-session-affinity"]), st.binary()))
def test_any_object_is_refused_by_name_or_becomes_a_call(
    pairs: list[tuple[str, Any]], endpoint: Endpoint, headers: dict[bytes, bytes]
) -> None:
    call = tried(written(pairs), endpoint, headers)
    if isinstance(call, InvalidRequest):
        assert call.param is None or call.param[:100] in {name[:100] for name, _ in pairs} | OWNED
    elif isinstance(call, GatewayError):
        assert call.status == 404
    else:
        assert call.session is None or call.session.isprintable()
        assert call.session is None or 1 <= len(call.session) <= 128


@given(good_pairs, endpoints, st.sampled_from([None, 1]))
@example(
    [("model", "free"), ("messages", []), ("stream", True), ("stream_options", {"continuous_usage_stats": True})],
    Endpoint.CHAT_COMPLETIONS,
    None,
)
def test_the_engine_reads_what_the_gateway_read(
    pairs: list[tuple[str, Any]], endpoint: Endpoint, indent: int | None
) -> None:
    assume(len({name.casefold() for name, _ in pairs}) == len(pairs))
    body = written(pairs, indent)
    call = tried(body, endpoint)
    assert isinstance(call, Call)
    sent = call.upstream_body(UPSTREAM)
    engine = json.loads(sent, object_pairs_hook=_no_doubles)
    assert engine["model"] == UPSTREAM
    assert call.requested_model == dict(pairs)["model"]
    names = BOUNDS.get(endpoint)
    if names is None:
        assert (call.stream, call.output_max) == (False, None)
    else:
        assert call.stream == bool(engine.get("stream"))
        bounds = [value for name in names if (value := engine.get(name)) is not None]
        assert call.output_max == min(bounds, default=call.model.output_tokens)
        everywhere = [value for name in OUTPUT_FIELDS if (value := engine.get(name)) is not None]
        assert call.model.output_tokens is None or all(bound <= OUTPUT_MAX for bound in everywhere)
    of_completions = endpoint in COMPLETIONS
    several = endpoint is Endpoint.COMPLETIONS and isinstance(engine["prompt"], list)
    prompts = max(len(engine["prompt"]), 1) if several else 1
    assert call.choices == ((engine.get("n") or 1) * prompts if of_completions else 1)
    assert endpoint is not Endpoint.RESPONSES or (engine["store"], "background" in engine) == (False, False)
    if call.stream and of_completions:
        assert engine["stream_options"]["include_usage"] is True
        asked = dict(pairs).get("stream_options") or {}
        assert call.usage_wanted == bool(asked.get("include_usage"))
        unasked = set() if call.usage_wanted else {"continuous_usage_stats"}
        assert engine["stream_options"].keys() == (asked.keys() | {"include_usage"}) - unasked
    before, after = _fields(body), _fields(sent)
    assert [name for name in before if name in after] == [name for name in after if name in before]
    changed = {"model", *(OUTPUT_FIELDS if names else ())}
    if of_completions:
        changed.add("stream_options")
    if endpoint is Endpoint.RESPONSES:
        changed |= {"store", "background"}
    assert after.keys() - before.keys() <= changed
    untouched = before.keys() - changed
    assert {name: bytes(before[name]) for name in untouched} == {name: bytes(after[name]) for name in untouched}


@given(good_pairs, st.lists(st.tuples(st.sampled_from(sorted(likely)), json_values), min_size=1, max_size=3), endpoints)
def test_of_doubled_fields_all_read_the_last(
    pairs: list[tuple[str, Any]], doubled: list[tuple[str, Any]], endpoint: Endpoint
) -> None:
    """So that a value that the gateway never saw cannot reach the engine."""
    once = {name: value for name, value in [*doubled, *pairs] if name in likely or name.islower()}
    twice = [*doubled, *once.items()]
    call, alone = tried(written(twice), endpoint), tried(written(list(once.items())), endpoint)
    assert type(call) is type(alone)
    if isinstance(call, GatewayError) or isinstance(alone, GatewayError):
        return
    assert json.loads(call.upstream_body(UPSTREAM), object_pairs_hook=_no_doubles) == json.loads(
        alone.upstream_body(UPSTREAM)
    )
    assert (call.stream, call.choices, call.output_max) == (alone.stream, alone.choices, alone.output_max)


@given(st.sampled_from(sorted(OWNED)), st.booleans(), st.data())
def test_another_spelling_of_a_field_is_refused(name: str, beside: bool, draw: st.DataObject) -> None:  # noqa: FBT001 - hypothesis passes by position
    """Also one that only Unicode calls the same: with a long s, or a K that is the Kelvin sign."""
    letters = [draw.draw(st.sampled_from(SPELLINGS.get(letter, letter + letter.upper()))) for letter in name]
    spelling = "".join(letters)
    assume(spelling != name)
    good: dict[str, Any] = {"model": "free", "messages": [], "prompt": "x", "input": "x"}
    if not beside:
        good.pop(name, None)
    pairs = draw.draw(st.permutations([*good.items(), (spelling, good.get(name, 1)), *([(name, 1)] if beside else [])]))
    with pytest.raises(InvalidRequest) as refused:
        parse(written(pairs), Endpoint.CHAT_COMPLETIONS)
    assert refused.value.param in (name, spelling)


@given(st.text(min_size=1, max_size=8), st.data())
def test_any_two_fields_that_differ_only_by_case_are_refused(name: str, draw: st.DataObject) -> None:
    other = draw.draw(st.sampled_from([name.upper(), name.lower(), name.title(), name.swapcase(), name.casefold()]))
    assume(other != name and other.casefold() == name.casefold())
    with pytest.raises(InvalidRequest):
        parse(written([("model", "free"), ("messages", []), (name, 1), (other, 2)]), Endpoint.CHAT_COMPLETIONS)


@given(st.sampled_from(["n", "max_tokens", "max_completion_tokens"]), st.one_of(st.integers(), st.floats(), st.text()))
def test_counts_are_whole_and_bounded(name: str, value: object) -> None:
    low, high = (1, CHOICES_MAX) if name == "n" else (0, OUTPUT_TOKENS_MAX)
    good = [("model", "free"), ("messages", []), (name, value)]
    if isinstance(value, int) and low <= value <= high:
        parse(written(good), Endpoint.CHAT_COMPLETIONS)
    elif not isinstance(value, float) or not value.is_integer():
        with pytest.raises(InvalidRequest):
            parse(written(good), Endpoint.CHAT_COMPLETIONS)


@given(st.binary(max_size=50), st.lists(st.integers(0, 50)).map(sorted), st.integers(0, 50), st.booleans())
def test_a_body_is_read_whole_however_it_comes(body: bytes, cuts: list[int], bytes_max: int, hangs_up: bool) -> None:  # noqa: FBT001 - hypothesis passes by position
    pieces = [body[a:b] for a, b in pairwise([0, *cuts, len(body)])] if cuts else [body]
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if hangs_up:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False

    async def receive() -> Message:
        return messages.pop(0)

    def read() -> bytes:
        return asyncio.run(read_body(receive, {}, arrived=len(messages) == 1, bytes_max=bytes_max, timeout_s=10))

    sent = sum(map(len, pieces))
    if sent > bytes_max:
        with pytest.raises(BodyTooLarge):
            read()
    elif hangs_up:
        with pytest.raises(Disconnected):
            read()
    else:
        assert read() == b"".join(pieces)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
