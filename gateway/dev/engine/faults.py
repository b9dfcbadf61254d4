"""The faults that were ordered, done to an answer on its way out: the one place through which all answers leave.

`admitted` is what comes before an answer; a `Sender` says one answer, event by event or whole. The life of a request
does not know of it, so the counters stay true: what was generated counts, told or not.
"""

import asyncio
from collections.abc import Sequence

from gateway.dev.engine.behaviour import Behaviour, Overrides
from gateway.dev.engine.core import Engine
from gateway.dev.engine.errors import Broken, EngineEnd, EngineError, EngineReset, EngineVanished
from gateway.dev.engine.http import EVENT_STREAM, JSON, Send

GARBAGE = b'{"this is no JSON'
STALL_S_MAX = 3_600


async def admitted(engine: Engine, model: str, *layers: Overrides | None) -> Behaviour:
    """Return how to answer a request, after the delay that was ordered for it.

    Raises EngineError as `Engine.admit` does and the one that was ordered, EngineReset in the place of an answer.
    """
    behaviour = engine.behaviour_for(*layers)
    if behaviour.delay_ms:
        await asyncio.sleep(behaviour.delay_ms / 1000)
    if behaviour.reset_before:
        raise EngineReset
    if behaviour.status is not None:
        raw = GARBAGE if behaviour.garbage else None
        raise EngineError(behaviour.status, "a simulated error", retry_after_s=behaviour.retry_after, raw=raw)
    engine.admit(model)
    return behaviour


class Sender:
    """Says one answer with all that is to be wrong with it: `head`, `events` … `end`, or `whole`.

    Raises Broken where the answer is to go no further.
    """

    def __init__(self, send: Send, behaviour: Behaviour) -> None:
        self._send = send
        self._behaviour = behaviour
        self._stop_after, self._stop = _stop_of(behaviour)
        # Most answers have nothing wrong with them, and many events.
        self._as_it_comes = behaviour.faultless
        self._events = 0
        self._held: list[bytes] = []

    async def head(self) -> None:
        """Send the head of a stream."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [EVENT_STREAM]})

    async def events(self, events: Sequence[bytes]) -> None:
        """Send events, each in a write of its own unless they are to be held back; a token may have none."""
        for event in events:
            if self._as_it_comes:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
                continue
            if self._stop_after == 0:
                await self._break()
            self._held.append(self._spoilt(event))
            if len(self._held) == self._behaviour.events_per_write:
                await self._flush()
            self._events += 1
            if self._events == self._stop_after:
                await self._break()

    async def end(self, events: Sequence[bytes]) -> None:
        """Send the last events, and end the stream."""
        await self.events(events[:-1] if self._behaviour.no_done else events)
        await self._flush()
        await self._send({"type": "http.response.body", "body": b""})

    async def whole(self, body: bytes) -> None:
        """Send an answer that is not streamed."""
        if self._stop_after is not None and self._stop is not EngineEnd:
            await self._break()
        body = GARBAGE if self._behaviour.garbage else _padded(body, b"}", self._behaviour.padding_bytes)
        body = body[: len(body) // 2] if self._stop is EngineEnd else body
        length = (b"content-length", str(len(body)).encode())
        await self._send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
        await self._write(body)
        if self._stop is EngineEnd:
            raise EngineEnd
        await self._send({"type": "http.response.body", "body": b""})

    async def _break(self) -> None:
        await self._flush()
        if self._stop is None:
            await asyncio.sleep(STALL_S_MAX)
        raise self._stop or EngineReset

    async def _flush(self) -> None:
        held, self._held = self._held, []
        if held:
            await self._write(b"".join(held) if len(held) > 1 else held[0])

    async def _write(self, data: bytes) -> None:
        size = self._behaviour.bytes_per_write
        if not size:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return
        for start in range(0, len(data), size):
            await self._send({"type": "http.response.body", "body": data[start : start + size], "more_body": True})
            # The loop joins what is written in one of its turns.
            await asyncio.sleep(0)

    def _spoilt(self, event: bytes) -> bytes:
        if self._behaviour.garbage:
            return b"data: " + GARBAGE + b"\n\n"
        return _padded(event, b"}\n\n", self._behaviour.padding_bytes)


def _stop_of(behaviour: Behaviour) -> tuple[int | None, type[Broken] | None]:
    """Return after how many events an answer goes no further, and how: `None` is a stall. The earliest order wins."""
    orders: list[tuple[int | None, type[Broken] | None]] = [
        (behaviour.abort_after_chunks, EngineReset),
        (behaviour.end_after_chunks, EngineEnd),
        (behaviour.half_open_after_chunks, EngineVanished),
        (behaviour.stall_after_chunks, None),
    ]
    given = [(after, stop) for after, stop in orders if after is not None]
    return min(given, key=lambda order: order[0]) if given else (None, None)


def _padded(data: bytes, tail: bytes, size: int) -> bytes:
    """Return a JSON object, `tail` its end, with `size` more bytes; what is no object stays as it is."""
    if not size or not data.endswith(tail):
        return data
    return data.removesuffix(tail) + b',"padding":"' + b"x" * size + b'"' + tail
