"""Half a character in a body: the refusal says which, and where it comes from."""

from __future__ import annotations

import pytest

from gateway.domain.call import Endpoint
from gateway.edge.body import parse_call
from gateway.errors import InvalidRequest
from gateway.units import new_event_id


def refusal(body: bytes) -> str:
    """Return what a body is refused with."""
    with pytest.raises(InvalidRequest) as refused:
        parse_call(body, Endpoint.CHAT_COMPLETIONS, {}, {}, event_id=new_event_id(), started_s=0.0)
    return str(refused.value)


LONE = {
    "high": (rb"\ud83d", r"\ud83d"),
    "high, then text": (rb"\ud83d and more text", r"\ud83d"),
    "high, then a line": (rb"\ud83d\n and more text", r"\ud83d"),
    "high, then another letter": (rb"\ud83d\u0041 and more text", r"\ud83d"),
    "high, then a pair": (rb"\ud83d\ud83d\ude00", r"\ud83d"),
    "low": (rb"\ude00", r"\ude00"),
    "low, then text": (rb"\ude00 and more text", r"\ude00"),
    "low behind a pair": (rb"\ud83d\ude00\ude01", r"\ude01"),
    "reversed": (rb"\ude00\ud83d", r"\ude00"),
    "in capitals": (rb"\uD83D", r"\uD83D"),
    "behind an escaped backslash": (rb"\\\ud83d", r"\ud83d"),
    "low behind what is no escape": (rb"\\ud83d\ude00", r"\ude00"),
}


@pytest.mark.parametrize(("text", "half"), LONE.values(), ids=LONE)
@pytest.mark.parametrize("behind", [b"", b', "stream": true, "temperature": 0.5'], ids=["last", "not last"])
def test_half_a_character_is_named(text: bytes, half: str, behind: bytes) -> None:
    body = b'{"model": "sim", "messages": [{"role": "user", "content": "' + text + b'"}]' + behind + b"}"
    assert f"a {half} escape stands alone: the text was cut inside a character" in refusal(body)


OTHERWISE_WRONG = {
    "a whole character": rb'"\ud83d\ude00"',
    "an escaped backslash": rb'"\\ud83d"',
    "two escaped backslashes": rb'"\\\\ude00"',
    "other letters": rb'"\u0041\ue000"',
    "no text": rb"\ud83 d",
}


@pytest.mark.parametrize("text", OTHERWISE_WRONG.values(), ids=OTHERWISE_WRONG)
@pytest.mark.parametrize("behind", [b"", b"]}]]]]]", b",,", b', "model": }'])
def test_what_is_wrong_otherwise_is_not_called_half_a_character(text: bytes, behind: bytes) -> None:
    assert "stands alone" not in refusal(b'{"messages": [' + text + behind)
