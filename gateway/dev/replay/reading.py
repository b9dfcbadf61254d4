"""Reads the answers of a chat completion, whole or streamed, for what a replay reports: usage, and the first token."""

import abc
import time
from typing import Any

import msgspec

from gateway.dev.replay.errors import ConnectionLost, Unreadable

LINE_BYTES_MAX = 16_777_216
BODY_BYTES_MAX = 67_108_864


class CachedTokens(msgspec.Struct):
    """`prompt_tokens_details`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """What a server says it used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: CachedTokens | None = None

    @property
    def cached_tokens(self) -> int:
        """How many of the prompt's tokens came from the cache; 0 where it does not say."""
        return (self.prompt_tokens_details.cached_tokens or 0) if self.prompt_tokens_details else 0


class Delta(msgspec.Struct):
    """What a chunk adds to the message."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct):
    """A choice, in a chunk or whole."""

    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def says(self) -> bool:
        """Whether it carries something of the answer."""
        delta = self.delta or Delta()
        thinks = delta.reasoning or delta.reasoning_content
        return bool(delta.content or thinks or delta.tool_calls or self.finish_reason)


class Chunk(msgspec.Struct):
    """An event of a stream, or a whole answer."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class Reading(abc.ABC):
    """Takes the pieces of one body; what it found stands in its attributes when `end` has returned."""

    usage: Usage | None = None
    first_token_s: float | None = None
    failed = False
    done = True
    """Whether it said its end, where it should."""

    @abc.abstractmethod
    def feed(self, piece: bytes) -> None:
        """Take a piece. Raises ConnectionLost for more than anybody should send."""

    @abc.abstractmethod
    def end(self) -> None:
        """Conclude. Raises ConnectionLost when the answer is not complete."""


class WholeReading(Reading):
    """An answer that is not streamed."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, piece: bytes) -> None:
        """Keep a piece."""
        self._body += piece
        if len(self._body) > BODY_BYTES_MAX:
            raise ConnectionLost(f"an answer of more than {BODY_BYTES_MAX} bytes")

    def end(self) -> None:
        """Read the usage."""
        document = _decoded(bytes(self._body))
        if not document.choices:
            raise Unreadable("an answer without choices")
        self.usage = document.usage


class StreamReading(Reading):
    """Server-sent events up to `[DONE]`, or up to the end of a body in which the answer said that it is finished."""

    def __init__(self) -> None:
        self._rest = b""
        self.done = False
        self._finished = False

    def feed(self, piece: bytes) -> None:
        """Read the lines that are complete."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            raise ConnectionLost(f"a line of more than {LINE_BYTES_MAX} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line[5:].strip())

    def end(self) -> None:
        """Demand that the answer was finished, unless the stream said an error."""
        if not self.done and not self._finished and not self.failed:
            raise ConnectionLost("a stream ended without a finish reason and without [DONE]")

    def _read(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        chunk = _decoded(data)
        self.failed = self.failed or chunk.error is not None
        self._finished = self._finished or any(choice.finish_reason for choice in chunk.choices)
        self.usage = chunk.usage or self.usage
        if self.first_token_s is None and any(choice.says for choice in chunk.choices):
            self.first_token_s = time.monotonic()


def _decoded(data: bytes) -> Chunk:
    try:
        return msgspec.json.decode(data, type=Chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"an answer that cannot be read: {error}") from error
