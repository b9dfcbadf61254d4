"""Server-sent events: wherever the bytes are cut and whatever ends their lines, the same events come out."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.relay.sse import EVENT_BYTES_MAX, EventSplitter, data_of

LINE_ENDS = (b"\n", b"\r\n", b"\r")

line_ends = st.sampled_from(LINE_ENDS)
lines = st.one_of(
    st.sampled_from([b"", b"", b"", b"data: x", b"data:", b": ping", b"event: e", b"data: [DONE]", b"data"]),
    st.binary(max_size=6).filter(lambda line: not re.search(rb"[\r\n]", line)),
)
texts = st.lists(st.tuples(lines, line_ends).map(b"".join), max_size=12).map(b"".join)
one_kind_of_end = line_ends.flatmap(
    lambda end: st.lists(lines.map(lambda line: line + end), max_size=12).map(b"".join),
)
streams = st.one_of(texts, one_kind_of_end, st.lists(st.sampled_from([b"\n", b"\r", b"a"])).map(b"".join))


def split(*pieces: bytes) -> tuple[list[bytes], bytes]:
    """Return all events of a stream that comes in these pieces, and what is left without an end."""
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.finish()


def events_by_the_standard(stream: bytes) -> list[bytes]:
    """Return the data of each event, by the algorithm of the HTML standard (section 9.2.6), line by line."""
    data: list[bytes] = []
    found = []
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:  # the last one has no end
        if line:
            name, colon, value = line.partition(b":")
            if name == b"data" and colon:
                data.append(value[1:] if value[:1] == b" " else value)
        elif data:
            found.append(b"\n".join(data))
            data = []
    return found


@given(streams, st.data())
def test_cuts_anywhere_change_nothing(stream: bytes, draw: st.DataObject) -> None:
    whole = split(stream)
    for at in range(len(stream) + 1):
        assert split(stream[:at], stream[at:]) == whole
    assert split(*(stream[at : at + 1] for at in range(len(stream)))) == whole
    cuts = draw.draw(st.lists(st.integers(0, len(stream))).map(sorted))
    assert split(*(stream[a:b] for a, b in pairwise([0, *cuts, len(stream)]))) == whole


@given(streams)
def test_events_are_those_of_the_standard(stream: bytes) -> None:
    events, _ = split(stream + b":")  # what follows a carriage return decides what it was
    assert [data for event in events if (data := data_of(event))] == list(filter(None, events_by_the_standard(stream)))


@given(streams)
def test_nothing_is_lost_but_blank_lines(stream: bytes) -> None:
    """Events are the bytes they came in: what is dropped between them is line ends alone."""
    events, rest = split(stream)
    position = 0
    for event in [*events, rest]:
        start = stream.index(event, position)
        assert not stream[position:start].strip(b"\r\n")
        position = start + len(event)
    assert not stream[position:].strip(b"\r\n")
    assert all(event.strip(b"\r\n") for event in events)


@given(st.lists(st.text().map(lambda text: text.replace("\r", "").replace("\n", "")).map(str.encode)), line_ends)
def test_data_survives_any_line_end(data: list[bytes], end: bytes) -> None:
    event = b"".join(b"data: %b%b" % (line, end) for line in data) + end
    assert data_of(event) == b"\n".join(data)
    assert data_of(b": note%bid: 7%bevent: e%b%b" % (end, end, end, event)) == b"\n".join(data)


@pytest.mark.parametrize("end", LINE_ENDS)
@settings(max_examples=5)
@given(piece_bytes=st.integers(2**16, 2**20))
def test_an_event_without_end_is_bounded(end: bytes, piece_bytes: int) -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: x" + end)
    for _ in range(EVENT_BYTES_MAX // piece_bytes - 1):
        assert splitter.feed(b"x" * piece_bytes) == []
    with pytest.raises(UpstreamFailed):
        splitter.feed(b"x" * (2 * piece_bytes))
