"""One replica leads: it holds a session advisory lock on a direct connection and has the duties that are for one alone.

It leads as long as that one connection lives unbroken. Postgres ends the session of a leader that is silent for too
long (frozen, or lost with its machine), so that another replica takes over; a leader that hears nothing of Postgres
gives up before that. Work that two must never do at once goes over the leader's own connection, lost with the lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import asyncpg
import structlog

from gateway.errors import reason_of
from gateway.patience import Deadline
from gateway.storage.dsn import asyncpg_dsn
from gateway.storage.postgres import AWAY_ERRORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from gateway.storage.postgres import Connection

LOCK = 0x70656E736C656164
"""The advisory lock, one in each database: `penslead` in ASCII. Not that of migrations, which would wait for ever."""

CONNECT_S_MAX = 5.0
CLOSE_S_MAX = 1.0
_BEATS = 4
"""Signs of life within the time that a leader may be silent."""

_log = structlog.get_logger("penstock.leader")


@dataclass(frozen=True, slots=True)
class Duty:
    """Work of the leader: run at once when a replica begins to lead, then again every `every_s` seconds.

    A run that takes more than `run_s_max` seconds is cancelled. One that raises has failed: it is counted, and said in
    the log when what it fails with changes.
    """

    name: str
    every_s: float
    run_s_max: float
    run: Callable[[Term], Awaitable[None]]


class Observer(Protocol):
    """Whoever exports how the leader does."""

    def led(self, *, leads: bool) -> None:
        """This replica leads from now on, or no longer does."""

    def duty_ran(self, name: str, seconds: float, *, failed: bool) -> None:
        """A duty was run to its end or its failure."""


class Term:
    """The time that one replica leads without a break; never the same object twice.

    Whatever a duty has observed counts from the beginning of its term: before that, anything may have happened unseen.
    """

    def __init__(self, connection: Connection, silence_s_max: float) -> None:
        self.began_s = time.monotonic()
        self._connection = connection
        self._silence_s_max = silence_s_max
        self._turn = asyncio.Lock()
        self._broken = asyncio.Event()
        connection.add_termination_listener(lambda _connection: self._broken.set())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield the leader's own connection, one user at a time, for statements that take moments.

        Postgres gives up a statement after a quarter of the time that a leader may be silent, which fails the duty. All
        statements together have half of that time: a connection that is lost, frozen or left in the middle ends the
        term, before Postgres ends the session of who is silent.
        """
        async with self._turn:
            try:
                async with Deadline(self._silence_s_max / 2):
                    yield self._connection
            except (asyncio.CancelledError, *AWAY_ERRORS) as error:
                # Postgres itself gave up the statement: the connection has heard of that, and is as good as before.
                if not isinstance(error, asyncpg.QueryCanceledError):
                    self._broken.set()
                raise

    async def last(self) -> None:
        """Return when the connection is lost, or has been silent for too long."""
        beating = asyncio.ensure_future(self._beat())
        try:
            await self._broken.wait()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        """Show Postgres that the leader lives, and see that Postgres does."""
        try:
            while True:
                await asyncio.sleep(self._silence_s_max / _BEATS)
                async with self._turn, Deadline(self._silence_s_max / 2):
                    await self._connection.execute("SELECT 1")
        finally:
            self._broken.set()


class Leadership:
    """Stands for election until cancelled, and leads while elected. At a clean end the lead is free at once."""

    def __init__(self, direct_dsn: str, duties: Sequence[Duty], observer: Observer, *, silence_s_max: float) -> None:
        """Prepare to lead.

        Args:
            direct_dsn: Postgres past any pooler: the lock belongs to the session.
            duties: what the leader does.
            observer: is told when that changes, and of every run.
            silence_s_max: how long a leader may be silent before Postgres ends its session, in seconds.
        """
        self._dsn = asyncpg_dsn(direct_dsn)
        self._duties = duties
        self._observer = observer
        self._silence_s_max = silence_s_max
        self._trouble = ""

    async def run(self) -> None:
        """Stand for election until cancelled. Postgres being away is a state, not an error."""
        while True:
            try:
                await self._stand()
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                self._say(reason_of(error))
            await self._pause()

    async def _stand(self) -> None:
        connection: Connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_S_MAX,
            command_timeout=self._silence_s_max,
            server_settings=_session(self._silence_s_max),
        )
        try:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                self._say("")
                await self._pause()
            self._say("")
            await self._lead(connection)
        finally:
            await _end(connection)

    async def _lead(self, connection: Connection) -> None:
        term = Term(connection, self._silence_s_max)
        self._observer.led(leads=True)
        _log.info("leads")
        running = [asyncio.ensure_future(self._keep(duty, term)) for duty in self._duties]
        try:
            await term.last()
        finally:
            for each in running:
                each.cancel()
            try:
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                self._observer.led(leads=False)
                _log.info("leads_no_longer")

    async def _keep(self, duty: Duty, term: Term) -> None:
        """Run one duty over and over, whatever becomes of a run."""
        trouble = ""
        while True:
            began_s = time.monotonic()
            failure = ""
            try:
                async with Deadline(duty.run_s_max):
                    await duty.run(term)
            except Exception as error:
                failure = reason_of(error)
                if failure != trouble:
                    expected = isinstance(error, (asyncpg.PostgresError, *AWAY_ERRORS))
                    _log.warning("duty_failed", duty=duty.name, reason=failure, exc_info=not expected)
            else:
                if trouble:
                    _log.info("duty_works_again", duty=duty.name)
            trouble = failure
            seconds = time.monotonic() - began_s
            self._observer.duty_ran(duty.name, seconds, failed=bool(failure))
            await asyncio.sleep(max(duty.every_s - seconds, 0.0))

    async def _pause(self) -> None:
        """Wait before the next try, replicas that were started together not all as long."""
        await asyncio.sleep(self._silence_s_max / _BEATS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, no secret

    def _say(self, trouble: str) -> None:
        """Log what keeps this replica from standing, when it changes."""
        if trouble and trouble != self._trouble:
            _log.warning("cannot_stand_for_leader", reason=trouble)
        self._trouble = trouble


def _session(silence_s_max: float) -> dict[str, str]:
    """Return what Postgres holds the session to: who is silent, or whose machine is lost, does not go on leading."""
    silence_ms = str(int(silence_s_max * 1000))
    return {
        "application_name": "penstock-leader",
        "idle_session_timeout": silence_ms,
        "idle_in_transaction_session_timeout": silence_ms,
        "statement_timeout": str(int(silence_s_max * 1000 / _BEATS)),
        "tcp_user_timeout": silence_ms,
        "tcp_keepalives_idle": str(max(int(silence_s_max / 2), 1)),
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "3",
        # A plan that was made when today's partitions were empty would read them whole when they no longer are.
        "plan_cache_mode": "force_custom_plan",
    }


async def _end(connection: Connection) -> None:
    """End the session, and with that the lead, politely where that takes no time."""
    with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):  # then asyncpg has cut it
        await connection.close(timeout=CLOSE_S_MAX)
