"""One question to Redis for many requests: scripts called in the same event-loop tick share one pipeline flush.

A flush has a deadline. When it is missed or Redis errs, everything that is waiting fails at once with
LimiterUnavailable, so that nobody waits a deadline after another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.errors import LimiterUnavailable
from gateway.patience import Deadline

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

FLUSHES_MAX = 4
"""Flushes on their way at once, each on a connection of its own; calls made meanwhile gather for the next."""

CALLS_PER_FLUSH_MAX = 64
"""Few enough that Redis runs them in a fraction of the deadline: a flush must not be late by its own size."""

CALLS_WAITING_MAX = 20_000


Arguments: TypeAlias = "tuple[str | bytes | int, ...]"


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script of this package, and the SHA-1 that Redis knows it by."""

    source: str
    sha1: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read `name`.lua from beside this module, with what the scripts share before it."""
        package = files("gateway.admit")
        source = "".join(package.joinpath(f"{part}.lua").read_text("utf-8") for part in ("buckets", name))
        return cls(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(slots=True, eq=False)
class _ScriptCall:
    script: Script
    arguments: Arguments
    future: asyncio.Future[Any]

    def command(self) -> Arguments:
        """Return it as Redis reads it."""
        return ("EVALSHA", self.script.sha1, *self.arguments)


class RedisBatch:
    """Runs scripts in shared pipelines, each answered within `timeout_s` or failed."""

    def __init__(self, client: Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._waiting: deque[_ScriptCall] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._idle: list[AbstractConnection] = []

    def call(self, script: Script, arguments: Arguments) -> asyncio.Future[Any]:
        """Queue one script call (`arguments` begins with the number of keys) and return its answer to come.

        The answer fails with LimiterUnavailable when Redis is late, away, or refuses.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if len(self._waiting) >= CALLS_WAITING_MAX:
            future.set_exception(LimiterUnavailable("too many requests wait for Redis"))
            return future
        self._waiting.append(_ScriptCall(script, arguments, future))
        if not self._scheduled and len(self._flushes) < FLUSHES_MAX:
            self._scheduled = True
            loop.call_soon(self._start_flush)
        return future

    async def close(self) -> None:
        """Wait for what was called, at most a deadline for each flush, and give the connections back."""
        while self._waiting or self._flushes:
            if self._flushes:
                await asyncio.wait(self._flushes)
            else:
                await asyncio.sleep(0)  # the next flush begins with the loop's next turn
        while self._idle:
            await self._client.connection_pool.release(self._idle.pop())

    def _start_flush(self) -> None:
        self._scheduled = False
        if self._waiting and len(self._flushes) < FLUSHES_MAX:
            calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), CALLS_PER_FLUSH_MAX))]
            task = asyncio.get_running_loop().create_task(self._flush(calls))
            self._flushes.add(task)
            task.add_done_callback(self._flushed)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        self._start_flush()

    async def _flush(self, calls: list[_ScriptCall]) -> None:
        try:
            async with Deadline(self._timeout_s):
                answers = await self._run(calls)
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(calls, error)
            return
        except asyncio.CancelledError:
            self._fail(calls, None)
            raise
        for call, answer in zip(calls, answers, strict=True):
            if call.future.done():
                continue
            if isinstance(answer, BaseException):
                call.future.set_exception(LimiterUnavailable(f"Redis refused: {type(answer).__name__}"))
            else:
                call.future.set_result(answer)

    async def _run(self, calls: list[_ScriptCall]) -> list[Any]:
        """Write all calls at once and read their answers, on a connection that is kept for the next flush.

        The client's own pipeline takes a connection from the pool, checks it and gives it back: at a few requests a
        second, when each has a flush of its own, that cost more than all else admission does.
        """
        if self._idle:
            # Redis, or what stands before it, may have closed a kept connection. Scripts may be run again: reserving
            # twice is a no-op, and so is settling twice.
            with contextlib.suppress(RedisConnectionError):
                return await self._run_on(self._idle.pop(), calls)
        return await self._run_on(await self._connect(), calls)

    async def _run_on(self, connection: AbstractConnection, calls: list[_ScriptCall]) -> list[Any]:
        try:
            answers = await _ask(connection, [call.command() for call in calls])
            missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if missing:  # Redis was restarted or flushed: load and ask again, in one more round trip
                sources = {calls[index].script.source for index in missing}
                loads: list[Arguments] = [("SCRIPT", "LOAD", source) for source in sources]
                again = await _ask(connection, loads + [calls[index].command() for index in missing])
                for index, answer in zip(missing, again[len(loads) :], strict=True):
                    answers[index] = answer
        except BaseException:
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)
            raise
        self._idle.append(connection)
        return answers

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call] # untyped there
        return connection

    def _fail(self, calls: list[_ScriptCall], error: BaseException | None) -> None:
        reason = type(error).__name__ if error is not None else "shutting down"
        while self._waiting:
            calls.append(self._waiting.popleft())
        for call in calls:
            if not call.future.done():
                call.future.set_exception(LimiterUnavailable(f"Redis does not answer: {reason}"))


async def _ask(connection: AbstractConnection, commands: list[Arguments]) -> list[Any]:
    """Return the commands' answers, refusals as exceptions among them."""
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as refusal:
            answers.append(refusal)
    return answers
