"""An exchange through litellm that is cancelled wherever it may be suspended closes the provider's stream and ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.domain.upstream import UpstreamRequest
from gateway.providers.litellm_connection import LitellmConnection
from tests.support.awaits import Where, reachable
from tests.support.source import REPOSITORY
from tests.support.stepping import Moment, Plan, Probe, Seen
from tests.support.waiting import near
from tests.unit.providers.models import Model, chunk
from tests.unit.providers.test_litellm_connection import ADDRESS, POOL, USAGE, FakeLibrary, Stream

MODULE = "providers/litellm_connection.py"
ROOTS = (f"{MODULE} LitellmConnection.send", f"{MODULE} StreamedResponse.read")
BEYOND = {
    f"{MODULE} LitellmConnection._load": "once for all requests, which shield it",
    f"{MODULE} _close": "runs by itself, once a request has given its stream up",
    "providers/http_response.py": "another way to engines",
}
NEVER_SUSPENDED = {
    f"{MODULE} LitellmConnection.send: async with Deadline(request.first_byte_s)": "sets a timer",
    f"{MODULE} StreamedResponse.read: async with Deadline(self._idle_s)": "sets a timer",
}
PAUSE_S = 0.002
PLACES = reachable(frozenset({"providers"}), ROOTS, BEYOND)


async def pause() -> None:
    """Let a few turns of the loop go by, suspended at one spot."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(PAUSE_S, over.set)
    await over.wait()


class SlowStream(Stream):
    """One that takes its time before each chunk."""

    async def __anext__(self) -> Model:
        await pause()
        return await super().__anext__()


class SlowLibrary(FakeLibrary):
    """One that takes its time to answer."""

    has_answered = False

    async def _call(self, **arguments: Any) -> Any:
        await pause()
        answer = await super()._call(**arguments)
        self.has_answered = True
        return answer


async def exchange(connection: LitellmConnection) -> None:
    body = json.dumps({"model": "openai/m", "messages": [], "stream": True}).encode()
    response = await connection.send(UpstreamRequest(b"POST", "/v1/chat/completions", b"", body, 5.0, 5.0))
    try:
        while await response.read():
            pass
    finally:
        response.abort()


async def run(probe: Probe, plan: Plan) -> Seen:
    """Let one exchange go its way and assert that nothing of it is left."""
    stream = SlowStream(chunk("hi"), chunk(finish_reason="stop"), chunk(usage=USAGE))
    library = SlowLibrary(stream)
    connection = LitellmConnection(POOL, ADDRESS, lambda: library)
    before = asyncio.all_tasks()
    seen = probe.arm(plan)
    task = asyncio.get_running_loop().create_task(exchange(connection))
    await asyncio.wait((task,))
    probe.disarm()
    assert task.cancelled() is bool(seen.hit)
    if library.has_answered:
        await near(stream.closed.is_set, "the stream is closed")
    await near(lambda: asyncio.all_tasks() <= before, "no task is left")
    assert seen.strangers == set()
    return seen


async def test_an_exchange_cancelled_anywhere_closes_its_stream() -> None:
    probe = Probe(Where(PLACES), ROOTS, str(REPOSITORY / "gateway"))
    probe.install(asyncio.get_running_loop())

    def cancel() -> None:
        assert probe.task is not None
        probe.task.cancel()

    normal = await run(probe, Plan(None, Moment.AT_ONCE, cancel))
    met: set[str] = set()
    for spot in normal.spots:
        for moment in Moment:
            seen = await run(probe, Plan(spot, moment, cancel))
            assert seen.hit
            met |= {str(place) for place in seen.hit}
    assert met == {str(place) for place in PLACES} - set(NEVER_SUSPENDED)
