"""Prices on a real Postgres: seeded once by however many replicas, in force from their date, kept when it is away."""

from __future__ import annotations

import asyncio
import datetime as dt
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


async def insert(dsn: str, days: float, rate: int, model: str = "a") -> None:
    """Set a price by hand that is in force from `days` days from now."""
    statement = """
        INSERT INTO model_price (model, effective_from, source, input_pico_usd, cached_input_pico_usd, output_pico_usd,
            reasoning_pico_usd, request_pico_usd)
        VALUES ($1, now() + make_interval(secs => $2), 'admin', $3::integer, $3 + 1, $3 + 2, $3 + 3, $3 + 4)
    """
    async with connected(dsn) as connection:
        await connection.execute(statement, model, days * 86_400, rate)


def rate_at(table: PriceTable, days: float, model: str = "a") -> int | None:
    """Return the input rate in force `days` days from now."""
    found = table.at(model, dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    return None if found is None else found.price.input_pico_usd


async def test_a_price_is_in_force_from_its_date_until_the_next(pool: Pool, postgres_dsn: str) -> None:
    for days, rate in ((-30, 1), (-9, 2), (-3, 3), (1, 4), (400, 5)):
        await insert(postgres_dsn, days, rate)
    await insert(postgres_dsn, 2, 9, "to come")
    table = PriceTable(pool)
    await table.refresh()
    expected = {-8: 2, -3.1: 2, -2.9: 3, 0: 3, 0.9: 3, 1.1: 4, 399: 4, 401: 5}
    assert {days: rate_at(table, days) for days in expected} == expected, "without reading again"
    assert rate_at(table, -29) is None, "what is long past is not kept"
    in_force = table.current("a")
    assert in_force is not None
    assert in_force.price == price(3)
    assert table.current("to come") is None
    assert rate_at(table, 3, "to come") == 9


async def test_a_models_first_price_reaches_back_a_little_and_the_next_does_not(pool: Pool) -> None:
    """A request that came just before, by a clock that is late, is not free for that."""
    table = PriceTable(pool)
    await table.seed(models(a=1))
    await table.refresh()
    assert rate_at(table, -30 / 86_400) == 1
    await table.seed(models(a=2))
    await table.refresh()
    assert (rate_at(table, -30 / 86_400), rate_at(table, 1)) == (1, 2)


async def test_a_file_that_did_not_change_overrides_nothing_set_by_hand(pool: Pool, postgres_dsn: str) -> None:
    table = PriceTable(pool)
    await table.seed(models(a=1))
    await insert(postgres_dsn, 0, 50)
    await insert(postgres_dsn, 10, 60)
    for _ in range(2):
        await table.seed(models(a=1))  # a restart
    await table.refresh()
    assert (rate_at(table, 0.001), rate_at(table, 11)) == (50, 60)
    await table.seed(models(a=2))
    await table.refresh()
    assert (rate_at(table, 0.001), rate_at(table, 11)) == (2, 60), (
        "a file that changed is in force, until the next date"
    )


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
