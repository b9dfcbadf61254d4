"""Engines and a client that are nothing but scripts, for tests of what the relay makes of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.domain.call import Call, Endpoint
from gateway.domain.config import EngineKind, ModelConfig, Timeouts
from gateway.units import new_event_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import msgspec

    from gateway.domain.attempt import AttemptOutcome
    from gateway.domain.upstream import UpstreamRequest
    from gateway.errors import GatewayError

MODEL = ModelConfig(name="asked", pool="p", upstream="engine-model")
TIMEOUTS = Timeouts(first_byte_s=7, idle_s=8)
JSON_HEADERS = {b"content-type": b"application/json"}
STREAM_HEADERS = {b"content-type": b"text/event-stream; charset=utf-8"}


@dataclass
class Response:
    """Pieces of a body: bytes are read, an error is raised, an Event is waited for and never comes."""

    status: int
    headers: dict[bytes, bytes]
    pieces: list[bytes | GatewayError | asyncio.Event]
    complete: bool = False
    aborted: bool = False
    left: bool = False
    stuck: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once what never comes is waited for."""

    async def read(self) -> bytes:
        """Return the next piece."""
        if not self.pieces:
            self.complete = True
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, bytes):
            return piece
        if isinstance(piece, asyncio.Event):
            self.stuck.set()
            await piece.wait()
            return b""
        raise piece

    def leave(self) -> None:
        """Take note."""
        self.left = True

    def abort(self) -> None:
        """Take note, unless it was left to end by itself."""
        self.aborted = not self.left


def json_response(document: object, status: int = 200, **headers: str) -> Response:
    """Return a whole JSON answer, in two pieces."""
    body = json.dumps(document).encode()
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Response(status, JSON_HEADERS | named, [body[:5], body[5:]])


def stream_response(*events: object) -> Response:
    """Return a stream: text is an event's data, a dictionary is a document, bytes and errors are pieces as they are."""
    pieces: list[bytes | GatewayError | asyncio.Event] = []
    for event in events:
        if isinstance(event, str | dict):
            data = event if isinstance(event, str) else json.dumps(event)
            pieces.append(f"data: {data}\n\n".encode())
        else:
            pieces.append(event)  # type: ignore[arg-type] # what tests pass is a piece already
    return Response(200, STREAM_HEADERS, pieces)


@dataclass
class Engine:
    """One attempt, and the connection it holds: answers with `response`, or fails with it. Remembers what it saw."""

    response: Response | GatewayError
    engine_kind: EngineKind = EngineKind.VLLM
    pool: str = "p"
    engine: str = "http://engine"
    upstream_model: str = "engine-model"
    headers: bytes = b"x-engine: 1\r\n"
    timeouts: Timeouts = TIMEOUTS
    requests: list[UpstreamRequest] = field(default_factory=list)
    outcomes: list[tuple[AttemptOutcome, float | None]] = field(default_factory=list)

    @property
    def connection(self) -> Engine:
        """The engine itself."""
        return self

    async def send(self, request: UpstreamRequest) -> Response:
        """Answer."""
        self.requests.append(request)
        if isinstance(self.response, Response):
            return self.response
        raise self.response

    async def close(self) -> None:
        """Nothing is kept."""

    def finish(self, outcome: AttemptOutcome, *, retry_after_s: float | None = None) -> None:
        """Take note."""
        self.outcomes.append((outcome, retry_after_s))

    @property
    def sent(self) -> Any:
        """The body of its only request."""
        (request,) = self.requests
        return json.loads(request.body)


async def attempts(*engines: Engine) -> AsyncIterator[Engine]:
    """Offer these engines in turn."""
    for engine in engines:
        yield engine


@dataclass
class Client:
    """The client's side: what it was sent, and how its answer ended."""

    content_sent: bool = False
    body: bytes = b""
    ended: bool = False

    async def answer(self, body: bytes) -> None:
        """Take a whole answer."""
        self.content_sent = self.ended = True
        self.body = body

    async def write(self, events: bytes) -> None:
        """Take events."""
        assert not self.ended
        self.content_sent = True
        self.body += events

    async def end(self, last: bytes) -> None:
        """Take the last events."""
        await self.write(last)
        self.ended = True


def call(
    *,
    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS,
    stream: bool = False,
    choices: int = 1,
    usage_wanted: bool = True,
    **fields: msgspec.Raw,
) -> Call:
    """Return a call for MODEL."""
    return Call(
        event_id=new_event_id(),
        endpoint=endpoint,
        requested_model="alias",
        model=MODEL,
        fields=dict(fields),
        body=b"",
        stream=stream,
        usage_wanted=usage_wanted,
        output_max=None,
        choices=choices,
        session=None,
        started_s=0.0,
    )
