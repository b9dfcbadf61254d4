"""What an operator reads of a Redis that runs no script: the error itself, not where in a script it came up."""

from __future__ import annotations

import pytest

from gateway.admit.script_call import REASON_CHARS_MAX, Refusal, meaning_of

READ_ONLY = "READONLY You can't write against a read only replica."
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    [
        READ_ONLY,
        f"ERR Error running script (call to f_{SHA}): @user_script:36: -{READ_ONLY}",
        f"ERR Error running script (call to f_{SHA}) @user_script:36: -{READ_ONLY}",
        f"ERR Error running script (call to f_{SHA}): @user_script:36: @user_script: 36: -{READ_ONLY}",
        f"{READ_ONLY} script: {SHA}, on @user_script:36.",
    ],
)
def test_a_refusal_is_told_by_its_meaning_in_every_version(text: str) -> None:
    assert Refusal.of(text) is Refusal.UNABLE
    assert meaning_of(text) == READ_ONLY


def test_what_is_told_is_bounded_and_other_texts_stay() -> None:
    assert meaning_of("BUSY " + "x" * 10_000) == ("BUSY " + "x" * 10_000)[:REASON_CHARS_MAX]
    denied = "NOPERM User gateway has no permissions to run the 'zadd' command"
    assert meaning_of(denied) == denied
