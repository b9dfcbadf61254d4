"""What the engine says: deterministic, counted exactly, ended as vLLM ends it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.engine.generation import WORDS, Wanted, answer, seed_of
from gateway.dev.engine.tokenizer import count_tokens
from gateway.dev.engine.tools import ToolCall

WANTED = Wanted(seed=1, max_tokens=1000, output_tokens=10)


def test_every_word_is_one_token() -> None:
    assert {len(word) for word in WORDS} == {4}
    assert len(set(WORDS)) == len(WORDS)


def test_the_same_seed_says_the_same_and_another_does_not() -> None:
    assert answer(WANTED) == answer(WANTED)
    assert answer(WANTED).pieces != answer(replace(WANTED, seed=2)).pieces
    assert seed_of(7, b"anything", 0) == 7
    assert seed_of(None, b"one", 0) != seed_of(None, b"other", 0)
    assert seed_of(7, b"", 1) != seed_of(7, b"", 0)


def test_the_end_token_counts_but_has_no_text() -> None:
    said = answer(WANTED)
    assert (len(said.pieces), said.finish_reason) == (10, "stop")
    assert count_tokens(said.text_of("content").encode()) == 9


@given(output_tokens=st.integers(1, 200), max_tokens=st.integers(1, 200))
def test_never_more_than_max_tokens_and_length_only_when_cut(output_tokens: int, max_tokens: int) -> None:
    said = answer(Wanted(seed=1, max_tokens=max_tokens, output_tokens=output_tokens))
    assert len(said.pieces) == min(output_tokens, max_tokens)
    assert said.finish_reason == ("length" if output_tokens > max_tokens else "stop")


def test_ignore_eos_runs_into_max_tokens() -> None:
    said = answer(replace(WANTED, ignore_eos=True, max_tokens=40))
    assert (len(said.pieces), said.finish_reason) == (40, "length")


@pytest.mark.parametrize(
    ("stops", "include", "text", "tokens", "reason"),
    [
        (("four",), False, "one two three ", 5, "four"),
        (("four",), True, "one two three four", 5, "four"),
        (("five", "two"), False, "one ", 2, "two"),
        (("one",), False, "", 1, "one"),
        (("six",), False, "one two three four five", 7, None),
    ],
)
def test_a_stop_string_ends_the_answer_with_the_token_that_completes_it(
    stops: tuple[str, ...], *, include: bool, text: str, tokens: int, reason: str | None
) -> None:
    said = answer(replace(WANTED, text="one two three four five", stops=stops, include_stop=include))
    assert (said.text_of("content"), len(said.pieces), said.stop_reason) == (text, tokens, reason)
    assert said.finish_reason == "stop"


@given(text=st.text(max_size=60), stop=st.text(min_size=1, max_size=4), cut=st.integers(1, 30))
def test_stop_and_text_hold_for_any_text(text: str, stop: str, cut: int) -> None:
    said = answer(Wanted(seed=0, max_tokens=cut, output_tokens=5, text=text, stops=(stop,)))
    shown = said.text_of("content")
    assert text.startswith(shown)
    assert stop not in shown
    assert len(said.pieces) <= cut


def test_reasoning_stands_before_the_answer() -> None:
    said = answer(replace(WANTED, reasoning_tokens=3))
    assert [piece.kind for piece in said.pieces[:5]] == ["reasoning"] * 3 + ["silent", "content"]
    assert len(said.pieces) == 3 + 1 + 10


def test_calls_are_said_in_pieces_whose_arguments_join_to_what_was_asked() -> None:
    calls = [ToolCall("id-1", "bash", '{"command": "ls -l"}'), ToolCall("id-2", "read", "{}")]
    said = answer(replace(WANTED, calls=calls))
    arguments = "".join(piece.text for piece in said.pieces if piece.kind == "tool_arguments" and piece.call == 0)
    assert arguments == calls[0].arguments
    assert [piece.text for piece in said.pieces if piece.kind == "tool_name"] == ["bash", "read"]
    assert (said.finish_reason, said.pieces[-1].kind) == ("tool_calls", "silent")
    cut = answer(replace(WANTED, calls=calls, max_tokens=6))
    assert (len(cut.pieces), cut.finish_reason) == (6, "length")
