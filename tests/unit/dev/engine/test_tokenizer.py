"""The engine's tokenizer: counting, ids and texts agree with each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.engine.tokenizer import bytes_of_ids, count_tokens, token_ids, token_texts


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("äöü", 2), ("🙂🙂", 2)])
def test_a_token_is_four_bytes(text: str, tokens: int) -> None:
    assert count_tokens(text.encode()) == tokens


@given(st.text())
def test_count_ids_and_texts_agree_for_any_text(text: str) -> None:
    data = text.encode()
    assert len(token_ids(data)) == len(token_texts(text)) == count_tokens(data)
    assert "".join(token_texts(text)) == text
    assert bytes_of_ids(token_ids(data)).rstrip(b"\0") == data.rstrip(b"\0")


def test_a_token_that_ends_inside_a_character_has_no_text_of_it() -> None:
    assert token_texts("abcäd") == ["abc", "äd"]
