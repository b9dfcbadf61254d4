"""Prices on a real Postgres: seeded once by however many replicas, in force from their date, kept when it is away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.domain.config import ModelConfig, Price
from gateway.settle import price as price_module
from gateway.settle.price import PriceTable
from gateway.storage.postgres import AWAY_ERRORS, open_pool
from gateway.units import PicoUsd
from tests.support.postgres import ask, connected
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.storage.postgres import Pool

PATIENCE_S = 10.0
HUGE = 10**30


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    pool.terminate()


def price(rate: int) -> Price:
    """Return a price."""
    return Price(*(PicoUsd(rate + offset) for offset in range(5)))


def models(**rates: int | None) -> dict[str, ModelConfig]:
    """Return models at these rates; None for one without a price."""
    return {
        name: ModelConfig(name=name, pool="p", upstream=name, price=None if rate is None else price(rate))
        for name, rate in rates.items()
    }


async def rows(dsn: str) -> list[Any]:
    """Return the rows of the price table as (model, input rate), oldest first."""
    async with connected(dsn) as connection:
        found = await connection.fetch("SELECT model, input_pico_usd, source FROM model_price ORDER BY id")
    return [(row["model"], int(row["input_pico_usd"])) for row in found if row["source"] == "config"]


async def test_replicas_that_start_together_seed_once(pool: Pool, postgres_dsn: str) -> None:
    tables = [PriceTable(pool) for _ in range(4)]
    await asyncio.gather(*(table.seed(models(a=1, b=HUGE, free=None)) for table in tables))
    assert sorted(await rows(postgres_dsn)) == [("a", 1), ("b", HUGE)]
    for table in tables:
        await table.refresh()
        in_force = table.current("b")
        assert in_force is not None
        assert in_force.price == price(HUGE), "to the last pico-USD"
        assert table.current("free") is None


async def test_only_what_differs_is_written(pool: Pool, postgres_dsn: str) -> None:
    table = PriceTable(pool)
    await table.seed(models(a=1, b=2))
    await table.seed(models(a=1, b=3))
    await table.seed(models(a=1))
    await table.seed(models(a=1, b=2))
    assert await rows(postgres_dsn) == [("a", 1), ("b", 2), ("b", 3), ("b", 2)]
    await table.refresh()
    in_force = table.current("b")
    assert in_force is not None
    assert in_force.price_id == await ask(postgres_dsn, "SELECT max(id) FROM model_price")


async def test_without_prices_nothing_is_asked(pool: Pool) -> None:
    pool.terminate()
    await PriceTable(pool).seed(models(free=None))
    with pytest.raises(AWAY_ERRORS):
        await PriceTable(pool).seed(models(a=1))


async def test_a_price_is_in_force_from_its_date(pool: Pool, postgres_dsn: str) -> None:
    table = PriceTable(pool)
    await table.seed(models(a=1))
    insert = (
        "INSERT INTO model_price (model, effective_from, input_pico_usd, cached_input_pico_usd, output_pico_usd,"
        " reasoning_pico_usd) VALUES ('a', now() + make_interval(days => $1), $2, 0, 0, 0)"
    )
    async with connected(postgres_dsn) as connection:
        await connection.execute(insert, 1, 7)
        await connection.execute(insert, -1, 5)
    await table.refresh()
    in_force = table.current("a")
    assert in_force is not None
    assert in_force.price == price(1), "neither the one to come nor the one before"


async def test_a_change_is_read_when_it_is_told_and_what_is_known_stands_meanwhile(
    pool: Pool, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = PriceTable(pool)
    running = asyncio.ensure_future(table.run())

    def rate() -> int | None:
        found = table.current("a")
        return None if found is None else found.price.input_pico_usd

    other = PriceTable(pool)
    await wait_until(lambda: not table._stale.is_set(), "it has read what there is")
    await other.seed(models(a=1))
    table.changed("key", "x")
    assert not table._stale.is_set()
    table.changed("prices", "")
    await wait_until(lambda: rate() == 1, "the change is read")
    await other.seed(models(a=2))
    table.trust(trusted=False)
    table.trust(trusted=True)
    await wait_until(lambda: rate() == 2, "what may have been missed is read")
    monkeypatch.setattr(price_module, "REFRESH_S", 0.0)
    await other.seed(models(a=3))
    table.changed("prices", "")
    await wait_until(lambda: rate() == 3, "and read again from time to time")
    assert await rows(postgres_dsn) == [("a", 1), ("a", 2), ("a", 3)]
    pool.terminate()
    table.changed("prices", "")
    await asyncio.sleep(0)
    assert rate() == 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
