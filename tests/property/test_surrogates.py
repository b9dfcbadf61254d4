"""Whatever text has lost half of a character: the refusal names that half, and no other text is accused of it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.call import Endpoint
from gateway.edge.body import parse_call
from gateway.errors import GatewayError
from gateway.units import new_event_id

SURROGATE = re.compile("[\ud800-\udfff]")

# Escapes of all kinds, often enough to meet each other, and texts that only look like them.
pieces = st.one_of(
    st.characters(codec="utf-16"),
    st.sampled_from(["\\", '"', "\n", "\\ud83d", "ud83d", "\\ude00", "\U0001f600", "\ud7ff", "\ue000"]),
)
texts = st.lists(pieces, max_size=8).map("".join)
halves = st.characters(categories=["Cs"])


def message(content: str, behind: str) -> str:
    """Return what a request with these texts, of a model that does not exist, is refused with."""
    document = {"model": "nothing", "messages": [{"role": "user", "content": content}], "user": behind}
    with pytest.raises(GatewayError) as refused:
        parse_call(
            json.dumps(document).encode(),
            Endpoint.CHAT_COMPLETIONS,
            {},
            {},
            event_id=new_event_id(),
            started_s=0.0,
        )
    return str(refused.value)


@given(texts, halves, texts, texts)
def test_half_a_character_is_named_wherever_it_stands(before: str, half: str, after: str, behind: str) -> None:
    assert f"a {json.dumps(half)[1:-1]} escape stands alone" in message(before + half + after, behind)


@given(texts, texts)
def test_a_text_of_whole_characters_is_not_accused(content: str, behind: str) -> None:
    assert not SURROGATE.search(content)
    assert "there is no model" in message(content, behind)


@given(texts, st.integers(0, 400))
def test_a_body_that_ends_too_early_is_accused_only_of_what_it_cut(content: str, size: int) -> None:
    """Where the cut itself went through a character, that is what is said."""
    body = json.dumps({"model": "nothing", "messages": content}).encode()[:size]
    with pytest.raises(GatewayError) as refused:
        parse_call(body, Endpoint.CHAT_COMPLETIONS, {}, {}, event_id=new_event_id(), started_s=0.0)
    if "stands alone" in str(refused.value):
        assert re.search(rb"\\u[dD][89abAB]..(\\(u[dD]?.{0,3})?)?$", body)
