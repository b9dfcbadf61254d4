"""Counting replicas on a real Postgres: those that beat live, and the last known count stands when nobody can tell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gateway.storage import replicas as replicas_module
from gateway.storage.postgres import AWAY_ERRORS, open_pool
from gateway.storage.replicas import LIVE_S, Replicas
from tests.support.postgres import ask
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

PATIENCE_S = 10.0
SILENT = "UPDATE replica SET heartbeat_at = now() - make_interval(secs => $2) WHERE boot_id = $1"


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    await pool.close()


async def test_each_replica_counts_those_that_live(pool: Pool, postgres_dsn: str) -> None:
    ids = [uuid4() for _ in range(3)]
    replicas = [Replicas(pool, boot_id) for boot_id in ids]
    assert [each.live() for each in replicas] == [1, 1, 1]
    for each in [*replicas, *replicas]:
        await each.beat()
    assert [each.live() for each in replicas] == [3, 3, 3]
    await ask(postgres_dsn, SILENT, ids[0], LIVE_S + 0.1)
    await replicas[1].beat()
    assert replicas[1].live() == 2, "one that fell silent is gone"
    await replicas[2].leave()
    await replicas[1].beat()
    assert replicas[1].live() == 1, "and so is one that left"
    await replicas[0].beat()
    await replicas[1].beat()
    assert replicas[1].live() == 2, "one that beats again is back"
    assert await ask(postgres_dsn, "SELECT count(*) FROM replica") == 3


async def test_the_last_known_count_stands_when_postgres_is_away(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas_module, "HEARTBEAT_S", 0.01)
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    await Replicas(pool, uuid4()).beat()
    replicas = Replicas(pool, uuid4())
    running = asyncio.ensure_future(replicas.run())
    await wait_until(lambda: replicas.live() == 2, "the other one is counted")
    pool.terminate()
    with pytest.raises(AWAY_ERRORS):
        await replicas.beat()
    await replicas.leave()
    assert replicas.live() == 2
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
