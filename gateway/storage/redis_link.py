"""One connection to Redis whose answers are heard by callback: no task waits for them.

redis-py opens it, with all that takes (TLS, users, the database's number), and then hands its socket over. Waiting for
an answer through a task and a stream of its own cost more of a request's time than everything else admission does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio import Redis

Command: TypeAlias = "tuple[str | bytes | int, ...]"

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment] # typed as if of one part


class _Incomplete:
    """What the parser returns when the rest of an answer has yet to come."""


class Listener(Protocol):
    """Who hears of a link. Neither method may raise."""

    def answered(self, answer: Any) -> None:
        """Take the answer to the oldest command that has none yet; a refusal is a hiredis.ReplyError."""
        ...

    def lost(self) -> None:
        """The link has ended, unless `close` ended it: what has no answer yet gets none."""
        ...


class HandsOver(Protocol):
    """A connection of redis-py that can give its socket away."""

    def hand_over(self) -> asyncio.StreamWriter: ...


class RedisLink(asyncio.Protocol):
    """Commands out, answers to `listener` in the same order. Made by `open_link`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reader = hiredis.Reader(notEnoughData=_Incomplete)
        self._transport: asyncio.Transport | None = None
        self._writer: asyncio.StreamWriter | None = None
        """Kept, as it closes its transport when nobody does."""
        self._closed = False

    def begin(self, connection: HandsOver) -> None:
        """Take over the socket of `connection`, on which no answer may be outstanding."""
        self._writer = connection.hand_over()
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)

    @property
    def closing(self) -> bool:
        """Whether it has ended or is about to: nothing more may be sent."""
        return self._closed or self._transport is None or self._transport.is_closing()

    def send(self, commands: Iterable[Command]) -> None:
        """Write commands, all at once."""
        assert self._transport is not None, "the link has begun"
        self._transport.write(b"".join([_pack(command) for command in commands]))

    def close(self) -> None:
        """End it at once; the listener hears no more."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # --- called by the event loop

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        while not self._closed:
            try:
                answer = reader.gets()
            except hiredis.ProtocolError:
                self.close()
                self._listener.lost()
                return
            if answer is _Incomplete:
                return
            if not isinstance(answer, hiredis.PushNotification):
                self._listener.answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._listener.lost()


async def open_link(client: Redis, listener: Listener) -> RedisLink:
    """Connect as `client` would, and return the link. Raises RedisError or OSError."""
    connection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # untyped there
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    link = RedisLink(listener)
    link.begin(cast("HandsOver", connection))
    return link
