"""Hearing of changes on a real Postgres: at once while connected, and knowing when not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gateway.dev.postgres import start_postgres
from gateway.storage import changes as changes_module
from gateway.storage.changes import CHANNEL, ChangeListener
from tests.support.frozen import frozen
from tests.support.postgres import ask
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.dev.children import RunningServer

CUT = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Notes:
    """A subscriber that remembers all that it was told."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.trusts: list[bool] = []

    def changed(self, kind: str, subject: str) -> None:
        """Take note."""
        self.changes.append((kind, subject))

    def trust(self, *, trusted: bool) -> None:
        """Take note."""
        self.trusts.append(trusted)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beat and reconnect quickly; what silence is stays what it was."""
    monkeypatch.setattr(changes_module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(changes_module, "_RECONNECT_S", 0.02)


@asynccontextmanager
async def listening(dsn: str, *subscribers: Notes) -> AsyncIterator[ChangeListener]:
    """Yield a listener that hears changes."""
    listener = ChangeListener(dsn, uuid4())
    for subscriber in subscribers:
        listener.subscribe(subscriber)
    running = asyncio.ensure_future(listener.run())
    try:
        await wait_until(lambda: listener.trusted, "changes are heard")
        yield listener
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_every_subscriber_hears_of_every_change(postgres_dsn: str) -> None:
    one, other = Notes(), Notes()
    async with listening(postgres_dsn, one, other):
        tenant = make_tenant(postgres_dsn)
        expected = {("key", tenant.key_public_id), ("organization", str(tenant.organization_id))}
        for notes in (one, other):
            await wait_until(lambda notes=notes: expected <= set(notes.changes), "both are heard")  # type: ignore[misc] # bound to this turn's
        await ask(postgres_dsn, "SELECT pg_notify($1, 'prices')", CHANNEL)
        await wait_until(lambda: ("prices", "") in one.changes, "a change without a subject is heard")
    assert one.trusts == other.trusts == [True, False], "once it ends, nobody relies on it"


async def test_a_cut_connection_is_noticed_and_made_again(postgres_dsn: str) -> None:
    notes = Notes()
    async with listening(postgres_dsn, notes):
        for times in (1, 2, 3):
            assert await ask(postgres_dsn, CUT) == 1
            await wait_until(lambda times=times: notes.trusts == [True] + [False, True] * times, "it is trusted again")  # type: ignore[misc] # bound to this turn's
        tenant = make_tenant(postgres_dsn)
        await wait_until(lambda: ("key", tenant.key_public_id) in notes.changes, "changes are heard again")


async def test_a_frozen_postgres_is_noticed_although_the_connection_stands(own_postgres: RunningServer) -> None:
    notes = Notes()
    async with listening(own_postgres.address, notes) as listener:
        with frozen(own_postgres):
            await wait_until(lambda: not listener.trusted, "the silence is noticed")
        await wait_until(lambda: listener.trusted, "it is trusted again")
        assert notes.trusts[:3] == [True, False, True]


async def test_a_postgres_that_is_not_there_yet_is_waited_for(own_postgres: RunningServer) -> None:
    folder = own_postgres.data.parent.parent
    own_postgres.child.stop()
    notes = Notes()
    listener = ChangeListener(own_postgres.address, uuid4())
    listener.subscribe(notes)
    running = asyncio.ensure_future(listener.run())
    try:
        server = await asyncio.to_thread(start_postgres, folder, folder / "logs")
        with server.child:
            assert server.address == own_postgres.address
            await wait_until(lambda: listener.trusted, "changes are heard")
            assert notes.trusts == [True]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        running.cancel()


def test_an_address_that_is_none_is_refused_without_quoting_it() -> None:
    with pytest.raises(ValueError, match="starts with postgresql") as refused:
        ChangeListener("mysql://user:secret@host/db", uuid4())
    assert "secret" not in str(refused.value)
