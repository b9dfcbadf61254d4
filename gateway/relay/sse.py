"""Server-sent events, split from bytes that may be cut anywhere; see the WHATWG HTML standard, section 9.2.6.

Events stay the bytes they were, so what needs no change is forwarded as it came.
"""

from __future__ import annotations

from gateway.errors import UpstreamFailed

EVENT_BYTES_MAX = 16 * 2**20
"""Largest event: an image in base64 fits, an endless line does not."""


class EventSplitter:
    """Cuts a byte stream into events at blank lines, whichever line ending the engine uses."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that are complete now, each with the blank line that ends it.

        Raises:
            UpstreamFailed: an event is larger than EVENT_BYTES_MAX.
        """
        if b"\r" in data or b"\r" in self._rest:
            return self._feed_any(data)
        rest = self._rest
        if rest:
            data = rest + data
        if data.endswith(b"\n\n"):
            self._rest = b""
            if data.find(b"\n\n") == len(data) - 2:
                return [data]
            return [event + b"\n\n" for event in data[:-2].split(b"\n\n")]
        *events, self._rest = data.split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise UpstreamFailed("the engine sent an event without end")
        return [event + b"\n\n" for event in events]

    def _feed_any(self, data: bytes) -> list[bytes]:
        """The rare case: carriage returns, which a following line feed belongs to."""
        text = self._rest + data
        events: list[bytes] = []
        start = position = 0
        line_start = 0
        while position < len(text):
            byte = text[position]
            if byte not in b"\r\n":
                position += 1
                continue
            if byte == 0x0D:
                if position + 1 == len(text):
                    break  # a line feed may follow in the next bytes
                end = position + 2 if text[position + 1] == 0x0A else position + 1
            else:
                end = position + 1
            if position == line_start:
                events.append(text[start:end])
                start = end
            line_start = position = end
        self._rest = text[start:]
        if len(self._rest) > EVENT_BYTES_MAX:
            raise UpstreamFailed("the engine sent an event without end")
        return events

    def finish(self) -> bytes:
        """Return what was left without an end: a last event that the engine did not close, or nothing."""
        rest, self._rest = self._rest, b""
        return rest


def data_of(event: bytes) -> bytes:
    """Return an event's data: its `data:` lines joined by line feeds, b"" when it has none (a comment, a ping)."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    lines = [line for line in event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n") if line[:5] == b"data:"]
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines)
