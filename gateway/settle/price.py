"""Exact money: tokens times rates in integer pico-USD, from prices that Postgres holds with an effective date.

An event costs what was in force when its request was opened. Each model's prices of the last days and all that are to
come are kept in the process, so that closing an event never waits for a database and a price whose date comes is in
force by itself; they are read again when Postgres says that they changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from bisect import bisect_right
from dataclasses import astuple, dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import asyncpg

from gateway.domain.call import Endpoint
from gateway.domain.config import Price
from gateway.domain.usage import Status
from gateway.storage.postgres import AWAY_ERRORS, borrowed
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.domain.config import ModelConfig
    from gateway.domain.usage import TokenUsage
    from gateway.storage.postgres import Pool

REFRESH_S = 60.0
QUERY_S_MAX = 5.0
_SEED_LOCK = 0x7072696365

PRICE_DAYS = 7
"""Days back from now whose prices are kept in the process: more than a request may take. Commands ask Postgres."""

FIRST_PRICE_REACH_S = 60
"""How far back a model's first price reaches: clocks differ, and a request must not be free for that."""

RATES = "input_pico_usd, cached_input_pico_usd, output_pico_usd, reasoning_pico_usd, request_pico_usd"
"""The columns of a price, in the order of `Price`."""

# Not now(), which is when the transaction began: a seed that waited for another's would not see what that wrote.
_KEPT = f"""
SELECT model, effective_from, id, {RATES} FROM model_price AS price
 WHERE effective_from > COALESCE((
           SELECT max(effective_from) FROM model_price AS earlier WHERE earlier.model = price.model
              AND earlier.effective_from <= clock_timestamp() - make_interval(days => {PRICE_DAYS})
       ), '-infinity') - interval '1 microsecond'
 ORDER BY model, effective_from
"""  # noqa: S608 - made of the constants above

# What penstock.yaml last said of each model, whatever was set by hand since.
_SEEDED = f"""
SELECT DISTINCT ON (model) model, id, {RATES} FROM model_price WHERE source = 'config' ORDER BY model, id DESC
"""  # noqa: S608 - made of the constant above

INSERT_PRICE = f"""
INSERT INTO model_price (model, effective_from, source, {RATES})
SELECT $1::text, COALESCE($2::timestamptz, clock_timestamp() - CASE
           WHEN EXISTS (SELECT FROM model_price WHERE model = $1 AND effective_from <= clock_timestamp())
           THEN interval '0' ELSE make_interval(secs => {FIRST_PRICE_REACH_S}) END),
       $3::text, $4::numeric, $5::numeric, $6::numeric, $7::numeric, $8::numeric
RETURNING id, effective_from, created_at
"""  # noqa: S608 - made of the constants above
"""Adds a price: model, moment (NULL: now, a little earlier for a model's first), source, rates as in `RATES`."""


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


def is_free(engine: str | None, status: Status, prompt_tokens: int, endpoint: str = "") -> bool:
    """Return whether an event costs nothing whatever the price.

    No engine was reached, it failed before a byte, or it only counted tokens.
    """
    if endpoint == Endpoint.COUNT_TOKENS.value:
        return True
    return engine is None or (status is not Status.OK and not prompt_tokens)


class PriceHistory:
    """The prices of one model by their dates, the last one being in force for good. Never changes."""

    __slots__ = ("_moments", "_prices")

    def __init__(self, dated: Iterable[tuple[dt.datetime, EffectivePrice]]) -> None:
        """Keep prices with the moments from which they are in force, in ascending order, each with its time zone."""
        pairs = tuple(dated)
        self._moments = tuple(moment for moment, _ in pairs)
        self._prices = tuple(price for _, price in pairs)

    def at(self, when: dt.datetime) -> EffectivePrice | None:
        """Return the price in force at a moment, None before the first one."""
        position = bisect_right(self._moments, when)
        return self._prices[position - 1] if position else None


class PriceTable:
    """The prices of all models. `run` keeps them fresh; `at` and `current` never wait."""

    def __init__(self, pool: Pool, histories: Mapping[str, PriceHistory] | None = None) -> None:
        self._pool = pool
        self._histories: Mapping[str, PriceHistory] = histories or {}
        self._stale = asyncio.Event()
        self._stale.set()

    def at(self, model: str, when: dt.datetime) -> EffectivePrice | None:
        """Return the price of a model that is in force at a moment of the last `PRICE_DAYS` days or of the future.

        None when it has none then. A price that came later than an event was closed is for `penstock ledger rerate`.
        """
        history = self._histories.get(model)
        return None if history is None else history.at(when)

    def current(self, model: str) -> EffectivePrice | None:
        """Return the price of a model now, None when it has none."""
        return self.at(model, dt.datetime.now(dt.UTC))

    def changed(self, kind: str, _subject: str) -> None:
        """A row changed in Postgres."""
        if kind == "prices":
            self._stale.set()

    def trust(self, *, trusted: bool) -> None:
        """Changes are heard again: read what may have been missed."""
        if trusted:
            self._stale.set()

    async def seed(self, models: Mapping[str, ModelConfig]) -> None:
        """Write the prices that penstock.yaml gives, where it says something else than when it was last seeded.

        Such a price is in force from now on, until the next one by date: what was set by hand for a later moment
        stays, and what was set by hand after an unchanged file stays, too. Replicas that start together seed once: the
        transaction takes a lock, and the later one finds nothing to do.

        Raises:
            asyncpg.PostgresError, OSError: Postgres is away or refuses.
        """
        wanted = {name: model.price for name, model in models.items() if model.price is not None}
        if not wanted:
            return
        async with borrowed(self._pool, QUERY_S_MAX) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _SEED_LOCK)
            seeded = {row["model"]: effective(row).price for row in await connection.fetch(_SEEDED)}
            for name, price in wanted.items():
                if seeded.get(name) != price:
                    await connection.execute(INSERT_PRICE, name, None, "config", *astuple(price))
        self._stale.set()

    async def refresh(self) -> None:
        """Read the prices. Raises what asyncpg raises when Postgres is away."""
        self._stale.clear()
        async with borrowed(self._pool, QUERY_S_MAX) as connection:
            rows = await connection.fetch(_KEPT)
        self._histories = {
            model: PriceHistory((row["effective_from"], effective(row)) for row in dated)
            for model, dated in groupby(rows, key=itemgetter("model"))
        }

    async def run(self) -> None:
        """Refresh on every change, and every minute for what was not heard."""
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


def effective(row: asyncpg.Record) -> EffectivePrice:
    """Return a row of `model_price` as what the data path works with."""
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
