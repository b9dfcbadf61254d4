"""Hears of changes to identity, limits and prices within a second, or knows that it cannot.

One direct connection listens on the channel that triggers notify, whoever wrote the row. Every 500 ms it sends itself
a heartbeat through NOTIFY; when the echo stays away, what was cached can no longer be trusted and subscribers are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Protocol

import asyncpg
import structlog

from gateway.errors import reason_of
from gateway.patience import Deadline
from gateway.storage.dsn import asyncpg_dsn
from gateway.storage.postgres import AWAY_ERRORS

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.storage.postgres import Connection

CHANNEL = "penstock"
HEARTBEAT_S = 0.5
SILENCE_S_MAX = 0.8
"""Longest time without an echo: with the verification that follows, less than the second that a revocation may take."""

_RECONNECT_S = 0.5

_log = structlog.get_logger("penstock.changes")


class Subscriber(Protocol):
    """Somebody who caches rows."""

    def changed(self, kind: str, subject: str) -> None:
        """A row changed: `kind` is `key`, `organization` or `prices`, `subject` its public id or id."""

    def trust(self, *, trusted: bool) -> None:
        """From now on changes are heard (after possibly having missed some), or no longer are."""


class ChangeListener:
    """Runs until cancelled, reconnecting by itself."""

    def __init__(self, direct_dsn: str, boot_id: UUID) -> None:
        self._dsn = asyncpg_dsn(direct_dsn)
        self._own_channel = f"penstock_{boot_id.hex}"
        self._subscribers: list[Subscriber] = []
        self._heard_s = 0.0
        self.trusted = False

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell `subscriber` of every change from now on."""
        self._subscribers.append(subscriber)

    async def run(self) -> None:
        """Listen for ever. Postgres being away is a state, not an error."""
        while True:
            try:
                await self._listen()
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                self._set_trusted(trusted=False, reason=reason_of(error))
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        connection: Connection = await asyncpg.connect(self._dsn, timeout=2.0, command_timeout=2.0)
        try:
            await connection.add_listener(CHANNEL, self._on_change)
            await connection.add_listener(self._own_channel, self._on_heartbeat)
            last_s = time.monotonic()
            while True:
                sent_s = time.monotonic()
                # Silence counts from the last echo: what changed just after it may be lost, and must act in time.
                async with Deadline(max(last_s + SILENCE_S_MAX - sent_s, 0.0)):
                    await connection.execute("SELECT pg_notify($1, '')", self._own_channel)
                # The echo comes with the answer or before it: Postgres notifies a session after its own commit.
                if self._heard_s >= sent_s:
                    last_s = self._heard_s
                    self._set_trusted(trusted=True, reason="heartbeat")
                elif time.monotonic() - last_s > SILENCE_S_MAX:
                    raise TimeoutError("no heartbeat")
                await asyncio.sleep(max(HEARTBEAT_S - (time.monotonic() - sent_s), 0.01))
        finally:
            self._set_trusted(trusted=False, reason="disconnected")
            with contextlib.suppress(Exception):  # the connection may be in any state; nothing depends on a clean end
                connection.terminate()

    def _on_heartbeat(self, _connection: object, _pid: int, _channel: str, _payload: object) -> None:
        self._heard_s = time.monotonic()

    def _on_change(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, subject = str(payload).partition(" ")
        for subscriber in self._subscribers:
            subscriber.changed(kind, subject)

    def _set_trusted(self, *, trusted: bool, reason: str) -> None:
        if trusted == self.trusted:
            return
        self.trusted = trusted
        _log.info("changes_heard" if trusted else "changes_unheard", reason=reason)
        for subscriber in self._subscribers:
            subscriber.trust(trusted=trusted)
