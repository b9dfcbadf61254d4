"""Server-sent events, split from bytes that may be cut anywhere; see the WHATWG HTML standard, section 9.2.6.

Events stay the bytes they were, so what needs no change is forwarded as it came.
"""

from __future__ import annotations

import re

from gateway.errors import UpstreamFailed

EVENT_BYTES_MAX = 16 * 2**20
"""Largest event: an image in base64 fits, an endless line does not."""

# Two line ends in a row. A carriage return that comes last is not one yet: a line feed may follow in the next bytes.
_END = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
_END_BYTES_MAX = 4


class EventSplitter:
    """Cuts a byte stream into events at blank lines, whichever line ending the engine uses.

    Blank lines that end no event are dropped. Each byte is looked at a bounded number of times, however it is cut.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now, each with the blank line that ends it.

        Raises:
            UpstreamFailed: an event is larger than EVENT_BYTES_MAX.
        """
        rest = self._rest
        if rest:
            seam = max(len(rest) - _END_BYTES_MAX + 1, 0)
            rest += data
            if _END.search(rest, seam) is None:
                self._check_size()
                return []
            data = bytes(rest)
            rest.clear()
        if b"\r" in data:
            events = self._cut_at_any_end(data)
        elif data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2 and data[0] != 0x0A:
            return [data]
        else:
            *bodies, last = data.split(b"\n\n")
            rest += last
            events = [body.lstrip(b"\n") + b"\n\n" for body in bodies if body.strip(b"\n")]
        self._check_size()
        return events

    def finish(self) -> bytes:
        """Return what was left without an end: a last event that the engine did not close, or nothing."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest

    def _cut_at_any_end(self, data: bytes) -> list[bytes]:
        """The rare case: carriage returns, which a following line feed belongs to."""
        events = []
        start = 0
        for end in _END.finditer(data):
            event = data[start : end.end()].lstrip(b"\r\n")
            if event:
                events.append(event)
            start = end.end()
        self._rest += data[start:]
        return events

    def _check_size(self) -> None:
        if len(self._rest) > EVENT_BYTES_MAX:
            raise UpstreamFailed("the engine sent an event without end")


def data_of(event: bytes) -> bytes:
    """Return an event's data: its `data:` lines joined by line feeds, b"" when it has none (a comment, a ping)."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = [line for line in event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines)
