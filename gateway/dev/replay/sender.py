"""Sends the plan: as many agents at once as there are sessions, each with one request under way at most.

An agent holds its own conversation and that of the sub-agent it waits for, so memory is bounded by the number of
sessions. An error is counted and the agent goes on with its next turn; a 429 is waited out, as long as it says. When
the time is up, requests under way are cancelled and counted as unfinished.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from gateway.dev.replay.client import Answer, Connection, Target
from gateway.dev.replay.conversation import Conversation, Texts
from gateway.dev.replay.errors import ConnectionLost, ReplayError, Unreadable, printable
from gateway.dev.replay.plan import Turn, turns_of
from gateway.dev.replay.reading import Reading, StreamReading, WholeReading
from gateway.dev.replay.report import Report

ERROR_BYTES_MAX = 65_536
# Where a 429 does not say how long, and before an agent tries again a server that was lost.
WAIT_S = 1.0
WAIT_S_MAX = 86_400.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to replay, and where to. `requests` and `duration_s` are bounds, `None` for none."""

    base_url: str
    model: str
    api_key: str | None = None
    sessions: int = 8
    requests: int | None = None
    duration_s: float | None = None
    scale: float = 0.01
    output_scale: float = 1.0
    speed: float = 1.0
    seed: int = 0
    stream: bool = True
    exact_output: bool = True


async def send(options: Options, target: Target, report: Report) -> None:
    """Run it to its bounds, counting in `report` as it goes.

    Raises ReplayError when nothing is to be learned by going on: no server, none of this kind, a key that is refused,
    an unknown model. However it ends, nothing is under way afterwards.
    """
    texts = Texts(options.seed, options.scale)
    agents = [asyncio.create_task(_Agent(options, target, texts, report, number).run()) for number in _working(options)]
    try:
        done, _ = await asyncio.wait(agents, timeout=options.duration_s, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)
    for agent in done:
        agent.result()


def _working(options: Options) -> range:
    """Return the numbers of the agents that have something to send."""
    return range(options.sessions if options.requests is None else min(options.sessions, options.requests))


class _Agent:
    def __init__(self, options: Options, target: Target, texts: Texts, report: Report, number: int) -> None:
        self._options = options
        self._texts = texts
        self._report = report
        self._number = number
        self._connection = Connection(target)
        self._turns: float = math.inf
        if options.requests is not None:
            self._turns = len(range(number, options.requests, options.sessions))

    async def run(self) -> None:
        """Send turn after turn."""
        options = self._options
        conversations: dict[int, Conversation] = {}
        sent = 0
        try:
            for turn in turns_of(options.seed, self._number, options.scale, options.output_scale):
                if sent == self._turns:
                    return
                await asyncio.sleep(turn.gap_s / options.speed)
                if turn.first:
                    conversations[turn.session] = Conversation(self._texts, self._number, turn.session)
                body = conversations[turn.session].body(
                    turn, options.model, stream=options.stream, exact_output=options.exact_output
                )
                sent += 1
                while (wait_s := await self._attempt(turn, body)) is not None:
                    await self._wait(wait_s)
                if turn.last:
                    del conversations[turn.session]
        finally:
            self._connection.close()

    async def _wait(self, seconds: float) -> None:
        """Sleep as a 429 said, and count how long it really was."""
        since_s = time.monotonic()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._report.waited_s += time.monotonic() - since_s

    async def _attempt(self, turn: Turn, body: bytes) -> float | None:
        """Send a request once and count how it ended. Return how long to wait before the same again, `None` for not."""
        sent_s = time.monotonic()
        reading: Reading = StreamReading() if self._options.stream else WholeReading()
        try:
            answer, pieces = await self._connection.post("/chat/completions", self._headers(turn), body)
            async with contextlib.aclosing(pieces):
                if answer.status != 200:
                    return self._refused(answer, await _read(pieces))
                self._expect_kind(answer)
                async for piece in pieces:
                    reading.feed(piece)
            reading.end()
        except asyncio.CancelledError:
            self._report.unfinished += 1
            raise
        except OSError as error:
            await self._unreachable(error)
        except ConnectionLost as error:
            self._lost(error)
        else:
            if reading.failed:
                self._report.error("in stream", "the stream told of an error")
            else:
                ttft_s = None if reading.first_token_s is None else reading.first_token_s - sent_s
                self._report.answer(reading.usage, ttft_s, sub_agent=turn.sub_agent, done=reading.done)
        return None

    def _headers(self, turn: Turn) -> dict[str, str]:
        options = self._options
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if options.stream else "application/json",
            "user-agent": "penstock-replay",
            "x-session-id": f"replay-{options.seed}-{self._number}-{turn.session}",
        }
        return headers | ({"authorization": f"Bearer {options.api_key}"} if options.api_key else {})

    def _refused(self, answer: Answer, body: bytes) -> float | None:
        """Count an error status. Raises ReplayError for those that will not change."""
        said = self._harmless(_message_of(body))
        if answer.status in (401, 403):
            raise ReplayError(f"the key is refused ({answer.status}: {said}): give another one with --api-key")
        if answer.status == 404:
            hint = f"is '{self._options.model}' (--model) served there, and does --base-url end as it should, in /v1?"
            raise ReplayError(f"not found ({said}): {hint}")
        if 300 <= answer.status < 400:
            place = self._harmless(answer.headers.get("location", "no place is named"))
            raise ReplayError(f"redirected ({answer.status}) to {place}: give the address of the server itself")
        if answer.status == 405:
            raise ReplayError(f"requests of this kind are refused (405: {said}): {self._what_it_should_be()}")
        self._report.error(str(answer.status), said)
        return _wait_of(answer) if answer.status == 429 else None

    def _expect_kind(self, answer: Answer) -> None:
        """Raise Unreadable for an answer that says to be neither what was asked for nor anything unknown."""
        wanted = "text/event-stream" if self._options.stream else "application/json"
        told = answer.headers.get("content-type", wanted)
        if told.partition(";")[0].strip().lower() != wanted:
            raise Unreadable(f"{told} in place of {wanted}")

    def _lost(self, error: ConnectionLost) -> None:
        """Count an answer that is none. Raises ReplayError when there was none yet and what came is something else."""
        unreadable = isinstance(error, Unreadable)
        if unreadable and self._report.answered == 0:
            raise ReplayError(f"no answer of a model ({self._harmless(str(error))}): {self._what_it_should_be()}")
        self._report.error("unreadable" if unreadable else "broken off", str(error))

    def _what_it_should_be(self) -> str:
        return f"is there an OpenAI-compatible server at {self._options.base_url} (--base-url)? It should end in /v1"

    def _harmless(self, said: str) -> str:
        """Return what a server said without our key, for a terminal."""
        return printable(said.replace(self._options.api_key, "***") if self._options.api_key else said)

    async def _unreachable(self, error: OSError) -> None:
        """Count a connection that could not be made. Raises ReplayError when there never was one."""
        why = str(error) or "no answer in time"
        if self._report.answered == 0:
            hint = "is the server running? `penstock engine --port 8000` starts one"
            raise ReplayError(f"nothing answers at {self._options.base_url} ({why}): {hint}") from error
        self._report.error("connection", why)
        await asyncio.sleep(WAIT_S)


def _wait_of(answer: Answer) -> float:
    """Return how long a 429 says to wait, in seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError, KeyError):
            told_s = float(answer.headers[name]) * unit_s
            if 0 <= told_s <= WAIT_S_MAX:
                return told_s
    return WAIT_S


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    """Read the body of an error to its end, and return what of it is worth keeping."""
    kept = bytearray()
    async for piece in pieces:
        kept += piece[: ERROR_BYTES_MAX - len(kept)]
    return bytes(kept)


def _message_of(body: bytes) -> str:
    """Return what an error says: `error.message` where there is one, else the body."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return str(msgspec.json.decode(body)["error"]["message"])
    return body.decode("utf-8", "replace")[:200] or "no explanation"
