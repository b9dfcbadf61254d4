"""However a key is written, an address under it is found: any case, any escapes, any place, any white space."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.call import Fields
from gateway.edge.images import refuse_addresses
from gateway.errors import ImageAddressRefused, InvalidRequest

ADDRESS = "http://169.254.169.254/"
KEYS = ["image_url", "video_url", "audio_url", "file_url", "file_id", "file_data", "input_audio"]
KEYS += ["image", "video", "audio"]
BLANKS = st.text(" \t\r\n", max_size=3)
TEXTS = st.text(max_size=20)


@st.composite
def written(draw: st.DrawFn, word: str) -> str:
    """A word as a JSON string, each letter in either case, as it is or as an escape in either case."""
    letters = []
    for letter in word:
        cased = draw(st.sampled_from([letter.lower(), letter.upper()]))
        escape = f"\\u{ord(cased):04x}"
        letters.append(draw(st.sampled_from([cased, cased, escape, f"\\u{ord(cased):04X}"])))
    return '"' + "".join(letters) + '"'


@st.composite
def hidden(draw: st.DrawFn) -> str:
    """An array of JSON that holds an address in a part, below any number of other things."""
    key, before, after = draw(written(draw(st.sampled_from(KEYS)))), draw(BLANKS), draw(BLANKS)
    text = f"{{{before}{key}{after}:{json.dumps(ADDRESS)}}}"
    for other in draw(st.lists(st.one_of(TEXTS, st.sampled_from(["\\", '"', 'a"b', "\\u", 'url"'])), max_size=4)):
        beside = json.dumps(other, ensure_ascii=draw(st.booleans()))
        wrapped = [f"[{beside},{text}]", f"[{text},{beside}]", f"{{{beside}:{text}}}", f'{{"a":{beside},"b":{text}}}']
        text = draw(st.sampled_from(wrapped))
    return f"[{text}]"


def fields_of(text: str) -> Fields:
    """Return the fields of a body that a gateway has decoded."""
    return msgspec.json.decode(f'{{"messages":{text}}}', type=Fields)


@given(hidden())
def test_no_spelling_of_a_key_evades(text: str) -> None:
    with pytest.raises(ImageAddressRefused):
        refuse_addresses(fields_of(text), ())


@given(
    st.recursive(
        st.one_of(TEXTS, st.integers(), st.none()), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
    )
)
def test_what_holds_none_of_the_keys_passes(value: object) -> None:
    refuse_addresses(fields_of(json.dumps(value)), ())


@given(st.binary(max_size=200))
def test_no_bytes_make_another_error(noise: bytes) -> None:
    body = b'{"messages":[{"image_url":"' + noise + b'"}]}'
    try:
        fields = msgspec.json.decode(body, type=Fields)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    try:
        refuse_addresses(fields, ())
    except (ImageAddressRefused, InvalidRequest):
        return
    assert noise.startswith(b"data:"), body
