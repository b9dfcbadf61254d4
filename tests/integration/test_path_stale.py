"""An engine that dies of a request on a kept connection looks like one that had closed it: is it asked for ever?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.engine import EngineProcess
from tests.support.ledger import closed_event
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"


@pytest.fixture(params=[1, 2], ids=["one engine", "two engines"])
def stack(
    databases: Databases,
    servers: ServerAddresses,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stack]:
    """One replica before one or two engines."""
    engines = [EngineProcess("sim") for _ in range(request.param)]
    with running_stack(databases, servers, tmp_path_factory.mktemp("stale"), engines=engines) as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_engines_die_of_is_generated_twice_at_most_and_booked(stack: Stack, stream: bool) -> None:  # noqa: FBT001 - pytest passes by name
    client = stack.client()
    for _ in range(4):
        assert client.post(CHAT, chat()).status == 200, "connections are kept from here on"
    before = sum(engine.counters()["received"] for engine in stack.engines)
    answer = client.post(CHAT, chat(stream=stream, sim={"abort_after_chunks": 0 if stream else 1}))
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    # The head of a stream is out before it breaks, so its engine is not asked again when there is no other.
    asked = 1 if stream and len(stack.engines) == 1 else 2
    assert sum(engine.counters()["received"] for engine in stack.engines) - before == asked
    row = closed_event(stack.dsn, answer.request_id)
    assert (row["status"], row["attempts"], row["completion_tokens"]) == ("upstream_error", asked, 0)
    assert row["coverage"] == "estimated", "the engines may have generated something"
