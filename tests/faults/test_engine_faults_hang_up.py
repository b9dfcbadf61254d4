"""The fault matrix for clients that hang up: before the first byte, after the first piece, in the middle of the fault.

However far the fault has got, the request is the client's end: the engine is left, what went by is billed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.engine_faults import FAULTS, MIDDLE, NEVER_MS, TOKENS, pool
from tests.support.books import Books
from tests.support.chat import chat
from tests.support.dialects import CHAT
from tests.support.engine import EngineProcess
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

SLOW = {"tokens_per_second": 1}
SPEAKS = [
    name
    for name, fault in FAULTS.items()
    if (fault.stream.code is None or fault.stream.begun) and "events_per_write" not in fault.sim
]
"""Faults of streams that say something before, or while, they happen."""
PAUSES = ["silent-midway", "vanished-midway"]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """The engine that fails."""
    with EngineProcess("sim", output_tokens=TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, engine: EngineProcess
) -> Iterator[Stack]:
    """One replica that has all the patience in the world."""
    config = {"models": {"sim": {"pool": "one"}}, "pools": {"one": pool(engine.url)}}
    folder = tmp_path_factory.mktemp("engine-faults-hang-up")
    with running_stack(databases, servers, folder, engines=(), extra_engines=[engine.url], config=config) as running:
        yield running


@pytest.fixture(scope="module")
def accounts(stack: Stack, engine: EngineProcess) -> Books:
    """The tenant that asks."""
    return Books(stack, [engine])


@pytest.fixture
def client(stack: Stack, books: Books) -> Http:
    """The client that will hang up."""
    return stack.gateway.http(books.tenant.key)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", FAULTS)
def test_before_the_first_byte(client: Http, books: Books, engine: EngineProcess, name: str, *, stream: bool) -> None:
    before = engine.counters()
    request = chat(stream=stream, max_tokens=TOKENS, sim={**FAULTS[name].sim, "delay_ms": NEVER_MS})
    with client.asked(CHAT.path, request):
        engine.wait_for(lambda now: now["received"] == before["received"] + 1)
    # Of a stream it is known that nothing came; a whole answer might have been under way.
    assert_left(books, engine, "aborted", completion=range(1) if stream else range(1, TOKENS + 1))


@pytest.mark.parametrize("name", SPEAKS)
def test_after_the_first_piece_of_a_stream(client: Http, books: Books, engine: EngineProcess, name: str) -> None:
    with client.stream(CHAT.path, chat(stream=True, sim={**FAULTS[name].sim, **SLOW})) as stream:
        events = []
        for event in stream.data():
            events.append(event)
            if CHAT.pieces(events):
                break
    row = assert_left(books, engine, "aborted", completion=range(1, 4))
    assert row["completion_tokens"] <= engine.state()["requests"][-1]["generated_tokens"]


@pytest.mark.parametrize("name", PAUSES)
def test_in_the_middle_of_a_silence(client: Http, books: Books, engine: EngineProcess, name: str) -> None:
    with client.stream(CHAT.path, chat(stream=True, sim=dict(FAULTS[name].sim))) as stream:
        data = stream.data()
        events = [next(data) for _ in range(MIDDLE)]
    said = len(CHAT.pieces(events))
    assert_left(books, engine, outcome_of(name), completion=range(said, said + 1))


@pytest.mark.parametrize("name", PAUSES)
def test_in_the_middle_of_a_silence_in_the_place_of_a_whole_answer(
    client: Http, books: Books, engine: EngineProcess, name: str
) -> None:
    before = engine.counters()["generated_tokens"]
    with client.asked(CHAT.path, chat(max_tokens=TOKENS, sim=dict(FAULTS[name].sim))):
        engine.wait_for(lambda now: now["generated_tokens"] == before + TOKENS)
    assert_left(books, engine, outcome_of(name), completion=range(1, TOKENS + 1))


def test_while_the_engine_holds_everything_back(client: Http, books: Books, engine: EngineProcess) -> None:
    """What was generated and never sent cannot be counted, and is not billed."""
    before = engine.counters()["generated_tokens"]
    sim = {**FAULTS["all-in-one-write"].sim, "tokens_per_second": 50, "output_tokens": 10_000}
    with client.asked(CHAT.path, chat(stream=True, sim=sim)):
        engine.wait_for(lambda now: now["generated_tokens"] >= before + 3)
    assert_left(books, engine, "aborted", completion=range(1))


def test_in_the_middle_of_a_huge_event(client: Http, books: Books, engine: EngineProcess) -> None:
    sim = {**FAULTS["events-of-2-MB"].sim, "output_tokens": 10_000}
    with client.asked(CHAT.path, chat(stream=True, sim=sim)) as connection:
        read = b""
        while len(read) < 100_000:
            read += connection.read()
    assert b"\n\n" not in read.partition(b"\r\n\r\n")[2], "the first event has not ended"
    # The first event has the role alone; the few after it that the buffers took in may have gone by.
    row = assert_left(books, engine, "aborted", completion=range(20))
    assert row["completion_tokens"] <= engine.state()["requests"][-1]["generated_tokens"]


def outcome_of(name: str) -> str:
    """What the engine makes of a hang-up: one that has vanished does not see it."""
    return "failed" if name.startswith("vanished") else "aborted"


def assert_left(books: Books, engine: EngineProcess, outcome: str, *, completion: range) -> dict[str, Any]:
    """Assert that all ended with the hang-up, and that the prompt and a `completion` in this range are billed."""
    row = books.closed()
    assert (row["status"], row["coverage"], row["attempts"]) == ("client_closed", "estimated", 1)
    assert row["error_code"] is None
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] in completion
    assert engine.state()["requests"][-1]["outcome"] == outcome
    return row
