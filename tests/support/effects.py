"""What changes in Postgres acts on every replica within a second: replicas that remember a key, and the wait for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.chat import chat
from tests.support.guarantees import bound_of, measured

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.http import Answer, Http
    from tests.support.stack import Stack

CHAT = "/v1/chat/completions"


def hears(lines: list[dict[str, object]]) -> bool:
    """Whether a replica's log says that it hears of changes."""
    told = [line["event"] for line in lines if line["event"] in {"changes_heard", "changes_unheard"}]
    return told[-1:] == ["changes_heard"]


def clients_of(stack: Stack, key: str) -> list[Http]:
    """Return a client of each replica whose key was used, and is therefore remembered there."""
    clients = [gateway.http(key) for gateway in stack.gateways]
    for client in clients:
        assert client.post(CHAT, chat(max_tokens=1)).status == 200
        assert client.post(CHAT, chat(max_tokens=1)).status == 200
    return clients


def assert_acts(
    clients: list[Http], change: Callable[[], object], met: Callable[[Answer], bool], promise: str = "revocation"
) -> None:
    """Make a change and assert that every replica answers as it should, in the promised time from the commit.

    The clock starts when the commit is known here, and each question counts from when it was sent: a replica that had
    not heard when it was asked has not heard in time, one that was asked late because this machine is busy may have.
    """
    within_s = bound_of(promise)
    change()
    committed_s = time.monotonic()
    slowest_s = 0.0
    for client in clients:
        unmet_s = 0.0
        while True:
            asked_s = time.monotonic() - committed_s
            if met(client.post(CHAT, chat(max_tokens=1))):
                break
            assert asked_s <= within_s, f"no effect {asked_s:.3f} s after the commit"
            unmet_s = asked_s
        # The first question that met the change, unless it was asked too late to say anything about the promise.
        slowest_s = max(slowest_s, asked_s if asked_s <= within_s else unmet_s)
    measured(promise, slowest_s, f"{len(clients)} replicas")


def refused(answer: Answer) -> bool:
    """Whether the key does not count any more."""
    return answer.status == 401
