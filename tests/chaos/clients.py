"""Clients that never give up: each has a key of its own, and asks another replica where one fails."""

from __future__ import annotations

import http.client
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.chaos.answers import read_stream, read_whole
from tests.chaos.attempts import Attempt, End
from tests.chaos.requests import drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.requests import Wanted
    from tests.support.http import Http

TRIES_MAX = 4
PAUSE_S = (0.0, 0.4)
REFUSED_PAUSE_S_MAX = 0.5
"""Refused clients come back sooner than they are told: limits are only tested where somebody runs into them."""
RETRIED_STATUSES = frozenset({502, 503, 504})
BROKEN = (OSError, http.client.HTTPException)


class Replica(Protocol):
    """What a client needs of a replica."""

    @property
    def serving(self) -> bool: ...

    def http(self, key: str | None = None) -> Http: ...


@dataclass(frozen=True)
class Caller:
    """Who a client is."""

    number: int
    key: str
    key_id: str


class Client(threading.Thread):
    """One client. `attempts` grows while it runs; nobody else changes it."""

    def __init__(self, caller: Caller, replicas: Sequence[Replica], seed: int, ending: threading.Event) -> None:
        super().__init__(name=f"client {caller.number}")
        self.attempts: list[Attempt] = []
        self.failure: BaseException | None = None
        self._caller = caller
        self._replicas = replicas
        self._rng = random.Random(f"client {caller.number} of {seed}")  # noqa: S311 - the same again for the same seed
        self._ending = ending

    def run(self) -> None:
        """Ask until told to end."""
        try:
            while not self._ending.is_set():
                self._ask()
                self._ending.wait(self._rng.uniform(*PAUSE_S))
        except BaseException as error:  # told by who joins the thread
            self.failure = error

    def ask_once_more(self) -> None:
        """Ask when all is well again: budgets that nobody uses any more are not compared with the ledger."""
        self._ask()

    def _ask(self) -> None:
        """Ask for one thing, on another replica where one fails before it has said anything."""
        for _ in range(TRIES_MAX):
            marker = f"chaos-{self._caller.number:03d}-{len(self.attempts):06d}"
            attempt = self._attempt(drawn(self._rng, marker), marker)
            self.attempts.append(attempt)
            if attempt.status == 429:
                self._ending.wait(self._rng.uniform(0.0, REFUSED_PAUSE_S_MAX))
            if attempt.status not in RETRIED_STATUSES and attempt.end is not End.UNANSWERED:
                return
            if self._ending.wait(self._rng.uniform(*PAUSE_S)):
                return

    def _attempt(self, wanted: Wanted, marker: str) -> Attempt:
        up = [number for number, replica in enumerate(self._replicas) if replica.serving]
        number = self._rng.choice(up or range(len(self._replicas)))
        client = self._replicas[number].http(self._caller.key)
        attempt = Attempt(
            marker, self._caller.number, self._caller.key_id, number, wanted.endpoint, wanted.streamed, time.time()
        )
        try:
            if wanted.streamed or wanted.hang_up_after is None:
                self._read(attempt, wanted, client)
            else:
                self._leave(attempt, wanted, client)
        except TimeoutError:
            attempt.end = End.WAITED_OUT
        except BROKEN:
            attempt.end = End.CUT if attempt.began else End.UNANSWERED
        attempt.ended_at = time.time()
        return attempt

    def _read(self, attempt: Attempt, wanted: Wanted, client: Http) -> None:
        with client.stream(wanted.path, wanted.document) as stream:
            attempt.status, attempt.request_id = stream.status, stream.headers.get("x-request-id")
            if stream.status == 200 and wanted.streamed:
                read_stream(attempt, stream, wanted.hang_up_after)
            else:
                read_whole(attempt, stream)

    def _leave(self, attempt: Attempt, wanted: Wanted, client: Http) -> None:
        """Ask for a whole answer and leave before it can be there, or just when it is."""
        connection = client.asked(wanted.path, wanted.document)
        with connection:
            self._ending.wait(wanted.hang_up_after)
            attempt.end = End.HUNG_UP
