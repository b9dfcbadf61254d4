"""No permanent error makes OpenCode try again: held against what its binary looks for, not against a list of ours.

OpenCode searches the text of every error, whatever its status, and repeats a request up to five times when it finds
one of its words. What it searches for is read out of the binary, so a new version is tested as soon as it is pinned.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.dialects import ANTHROPIC, OPENAI, RESPONSES
from gateway.edge.errors import DETAIL_HEADER, RETRIED_WORDS, error_event, render
from gateway.errors import GatewayError, UpstreamRefused
from gateway.relay.upstream_errors import from_event, refused
from tests.support.opencode import program
from tests.support.opencode_retry import RetryRules, ShapeChanged, retry_rules
from tests.support.permanent import REPLICA, permanent_classes, refused_requests
from tests.support.refusals import without_id
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

FOUND_MIN = 30
"""Fewer alternatives than this would mean that most of them were not found."""


@pytest.fixture(scope="module")
def rules() -> RetryRules:
    """What the pinned version tries again."""
    return retry_rules(program())


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with small bounds."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("words"), **REPLICA) as running:
        yield running


def strings_in(document: object) -> list[str]:
    """Return every text in a JSON document, keys included."""
    if isinstance(document, dict):
        return [text for key, value in document.items() for text in (key, *strings_in(value))]
    if isinstance(document, list):
        return [text for value in document for text in strings_in(value)]
    return [document] if isinstance(document, str) else []


def assert_not_retried(rules: RetryRules, body: str) -> None:
    """Assert that neither the body as it came nor any text in it makes OpenCode try again."""
    for text in (body, *strings_in(json.loads(body))):
        assert not rules.retries(text), text


def assert_permanent(rules: RetryRules, error: GatewayError) -> None:
    """Assert that an error is seen once, as an answer and as the end of a stream, whatever the caller speaks."""
    assert error.permanent
    assert error.status not in rules.statuses
    assert error.status < rules.status_min
    for dialect in (OPENAI, RESPONSES, ANTHROPIC):
        assert_not_retried(rules, render(error, dialect)[0].decode())
        assert_not_retried(rules, error_event(error, dialect).split(b"data: ", 1)[1].decode())


def test_the_rules_are_those_of_a_retrying_client(rules: RetryRules) -> None:
    assert len(rules.alternatives()) >= FOUND_MIN
    assert (rules.statuses, rules.status_min) == (frozenset({408, 409, 429}), 500)
    assert rules.retries_max == 5
    assert rules.retries("monthly budget of $500 exceeded")
    assert not rules.retries("the API key is not valid")


@settings(deadline=None)  # what is drawn takes longer than what is tested
@given(st.data())
def test_whatever_opencode_looks_for_the_gateway_looks_for(rules: RetryRules, data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from(rules.alternatives()))
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    assert RETRIED_WORDS.search(text), (pattern.pattern, text)


@settings(deadline=None)  # what is drawn takes longer than what is tested
@given(st.data())
def test_no_class_of_permanent_error_is_retried_whatever_it_says(rules: RetryRules, data: st.DataObject) -> None:
    word = st.sampled_from(rules.alternatives()).flatmap(st.from_regex)
    kind = data.draw(st.sampled_from(permanent_classes()))
    error = kind(data.draw(word), param=data.draw(st.none() | word))
    assert_permanent(rules, error)


@settings(deadline=None)  # what is drawn takes longer than what is tested
@given(st.data())
def test_no_refusal_of_an_engine_is_retried_whatever_it_says(rules: RetryRules, data: st.DataObject) -> None:
    word = st.sampled_from(rules.alternatives()).flatmap(st.from_regex)
    status = data.draw(st.sampled_from([400, 402, 413, 422]))
    fields: dict[str, Any] = {name: data.draw(word) for name in ("message", "code", "type", "param")}
    assert_permanent(rules, refused(status, json.dumps({"error": fields}).encode()))
    event = from_event(json.dumps({"error": {**fields, "code": status}}).encode())
    assert isinstance(event, UpstreamRefused)
    assert_permanent(rules, event)


def test_what_the_gateway_really_says_is_not_retried(rules: RetryRules, stack: Stack) -> None:
    """Its own words need no fixed text either: who reads an error gets all of it."""
    anybody = stack.gateway.http()
    for method, path, document, headers, status, code in refused_requests(stack):
        answer = anybody.ask(method, path, document, headers)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert_not_retried(rules, without_id(answer))
        assert answer.headers.get(DETAIL_HEADER.decode()) is None, answer


@pytest.mark.parametrize(
    ("code", "missed"),
    [
        ("nothing of the kind", "0 modules"),
        ("SessionRetry:()=>a; SessionRetry:()=>b", "2 modules"),
        ("SessionRetry:()=>a; isRetryable:x=q!=null&&(q===408||q>=500)", "no list of patterns"),
        ("SessionRetry:()=>a; q=[/429/i]", "none found"),
        ("SessionRetry:()=>a; isRetryable:x=q!=null&&(q===408||q>=500) q=[/429/i]", "not what a text is searched for"),
    ],
)
def test_another_shape_of_the_binary_is_told(tmp_path: Path, code: str, missed: str) -> None:
    binary = tmp_path / "opencode"
    binary.write_text(code)
    with pytest.raises(ShapeChanged, match=missed):
        retry_rules(binary)
