"""Exact money: tokens times rates in integer pico-USD, from prices that Postgres holds with an effective date.

Prices are kept in the process and read again when Postgres says that they changed, so that closing an event never
waits for a database.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from gateway.domain.config import Price
from gateway.storage.postgres import AWAY_ERRORS, borrowed
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.domain.config import ModelConfig
    from gateway.domain.usage import TokenUsage
    from gateway.storage.postgres import Pool

REFRESH_S = 60.0
QUERY_S_MAX = 5.0
_SEED_LOCK = 0x7072696365

# Not now(), which is when the transaction began: a seed that waited for another's would not see what that wrote.
_CURRENT = """
SELECT DISTINCT ON (model) model, id, input_pico_usd, cached_input_pico_usd, output_pico_usd,
       reasoning_pico_usd, request_pico_usd
  FROM model_price WHERE effective_from <= clock_timestamp() ORDER BY model, effective_from DESC
"""

_SEED = """
INSERT INTO model_price (model, effective_from, input_pico_usd, cached_input_pico_usd, output_pico_usd,
                         reasoning_pico_usd, request_pico_usd, source)
VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, 'config')
"""


@dataclass(frozen=True, slots=True)
class EffectivePrice:
    """A price and the row that holds it."""

    price_id: int
    price: Price


def cost(price: Price, usage: TokenUsage) -> PicoUsd:
    """Return what `usage` costs: uncached and cached input, visible output and reasoning, and the request itself."""
    return PicoUsd(
        usage.uncached * price.input_pico_usd
        + usage.cached * price.cached_input_pico_usd
        + (usage.completion - usage.reasoning) * price.output_pico_usd
        + usage.reasoning * price.reasoning_pico_usd
        + price.request_pico_usd
    )


class PriceTable:
    """The prices in force. `run` keeps them fresh; `current` never waits."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._prices: Mapping[str, EffectivePrice] = {}
        self._stale = asyncio.Event()
        self._stale.set()

    def current(self, model: str) -> EffectivePrice | None:
        """Return the price of a model now, None when it has none."""
        return self._prices.get(model)

    def changed(self, kind: str, _subject: str) -> None:
        """A row changed in Postgres."""
        if kind == "prices":
            self._stale.set()

    def trust(self, *, trusted: bool) -> None:
        """Changes are heard again: read what may have been missed."""
        if trusted:
            self._stale.set()

    async def seed(self, models: Mapping[str, ModelConfig]) -> None:
        """Write the prices that penstock.yaml gives, where they differ from what is in force.

        Replicas that start together seed once: the transaction takes a lock, and the later one finds nothing to do.

        Raises:
            asyncpg.PostgresError, OSError: Postgres is away or refuses.
        """
        wanted = {name: model.price for name, model in models.items() if model.price is not None}
        if not wanted:
            return
        async with borrowed(self._pool, QUERY_S_MAX) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _SEED_LOCK)
            current = {row["model"]: _effective(row).price for row in await connection.fetch(_CURRENT)}
            for name, price in wanted.items():
                if current.get(name) != price:
                    rates = (price.input_pico_usd, price.cached_input_pico_usd, price.output_pico_usd)
                    await connection.execute(_SEED, name, *rates, price.reasoning_pico_usd, price.request_pico_usd)
        self._stale.set()

    async def refresh(self) -> None:
        """Read the prices in force now. Raises what asyncpg raises when Postgres is away."""
        self._stale.clear()
        async with borrowed(self._pool, QUERY_S_MAX) as connection:
            rows = await connection.fetch(_CURRENT)
        self._prices = {row["model"]: _effective(row) for row in rows}

    async def run(self) -> None:
        """Refresh on every change, and every minute for prices whose date has come."""
        while True:
            started_s = time.monotonic()
            try:
                await self.refresh()
            except (asyncpg.PostgresError, *AWAY_ERRORS):
                self._stale.set()  # the last known prices stand
                await asyncio.sleep(1.0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S - (time.monotonic() - started_s)):
                    await self._stale.wait()


def _effective(row: asyncpg.Record) -> EffectivePrice:
    return EffectivePrice(
        row["id"],
        Price(
            input_pico_usd=PicoUsd(int(row["input_pico_usd"])),
            cached_input_pico_usd=PicoUsd(int(row["cached_input_pico_usd"])),
            output_pico_usd=PicoUsd(int(row["output_pico_usd"])),
            reasoning_pico_usd=PicoUsd(int(row["reasoning_pico_usd"])),
            request_pico_usd=PicoUsd(int(row["request_pico_usd"])),
        ),
    )
