"""Billing series for Prometheus, read from the ledger: counters that survive whatever happens to a replica.

They are all-time totals that the rollup keeps (`usage_total`), so they go on where they were after a restart, a kill -9
and the retention of what they sum up. All replicas export the same totals, each as of its own last reading: take the
largest. What corrections took back has series of its own, so that no counter ever falls: what is due is charges less
credits. Amounts are exact in the ledger and 64-bit floats here.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.errors import reason_of
from gateway.storage.postgres import AWAY_ERRORS, borrowed
from gateway.units import PICO_USD_PER_USD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from gateway.storage.postgres import Pool

READ_S_MAX = 5.0
LABEL_SETS_MAX = 5_000
"""How many combinations of team and model are exported, eleven samples each: those that were first. A gauge tells how
many are left out."""

_KINDS = ("prompt", "cached", "completion", "reasoning")
_LABELS = ("organization", "team", "team_id", "model")

# Names as they are now. The id tells teams apart that had the same name, one after the other.
_READ = """
SELECT coalesce(o.name, t.organization_id::text) AS organization, coalesce(m.name, t.team_id::text) AS team,
       t.team_id::text AS team_id, t.served_model AS model, t.requests,
       ARRAY[charged_prompt_tokens, charged_cached_tokens, charged_completion_tokens, charged_reasoning_tokens,
             charged_cost_pico_usd] AS charged,
       ARRAY[credited_prompt_tokens, credited_cached_tokens, credited_completion_tokens, credited_reasoning_tokens,
             credited_cost_pico_usd] AS credited
  FROM usage_total t
  LEFT JOIN organization o ON o.id = t.organization_id
  LEFT JOIN team m ON m.organization_id = t.organization_id AND m.id = t.team_id
 ORDER BY t.id LIMIT $1
"""
_STATE = """
SELECT (SELECT count(*) FROM usage_total) AS label_sets, extract(epoch FROM now() - rolled_up_at)::float AS age_s
  FROM rollup_state
"""

_log = structlog.get_logger("penstock.billing")


@dataclass(frozen=True, slots=True)
class _Total:
    """All that one team used of one model: tokens by kind, then US dollars, in `charged` and `credited`."""

    labels: tuple[str, ...]
    requests: float
    charged: tuple[float, ...]
    credited: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read at `read_s` of the monotonic clock, when the last rollup was `rollup_age_s` old."""

    totals: tuple[_Total, ...] = ()
    left_out: int = 0
    read_s: float = -math.inf
    rollup_age_s: float = math.inf


class BillingSeries(Collector):
    """Reads the totals every few seconds and exports what it read last, also while Postgres is away."""

    def __init__(
        self, pool: Pool, registry: CollectorRegistry, *, every_s: float, label_sets_max: int = LABEL_SETS_MAX
    ) -> None:
        self._pool = pool
        self._label_sets_max = label_sets_max
        self._every_s = every_s
        self._reading = _Reading()
        self._away = False
        registry.register(self)

    async def run(self) -> None:
        """Read until cancelled; the last values stand while Postgres is away."""
        while True:
            try:
                await self.read()
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                if not self._away:
                    self._away = True
                    _log.warning("billing_not_read", reason=reason_of(error))
            else:
                self._away = False
            await asyncio.sleep(self._every_s)

    async def read(self) -> None:
        """Read the totals once. Raises what asyncpg raises when Postgres is away, or its role may not."""
        async with borrowed(self._pool, READ_S_MAX) as connection:
            rows = await connection.fetch(_READ, self._label_sets_max)
            (state,) = await connection.fetch(_STATE)
        age_s = math.inf if state["age_s"] is None else state["age_s"]
        left_out = max(state["label_sets"] - len(rows), 0)
        self._reading = _Reading(tuple(map(_total, rows)), left_out, time.monotonic(), age_s)

    def collect(self) -> Iterator[Metric]:
        """Yield the series of the last reading. Called from the thread that serves the metrics."""
        reading = self._reading
        requests = CounterMetricFamily(
            "penstock_billing_requests", "Closed requests in the ledger, of all time.", labels=_LABELS
        )
        for total in reading.totals:
            requests.add_metric(total.labels, total.requests)
        yield requests
        charged = [(total.labels, total.charged) for total in reading.totals]
        credited = [(total.labels, total.credited) for total in reading.totals]
        yield from _amounts("penstock_billing", "charged in the ledger, of all time", charged)
        yield from _amounts(
            "penstock_billing_credits", "taken back by corrections in the ledger, of all time", credited
        )
        since_s = time.monotonic() - reading.read_s
        for name, text, value in (
            ("penstock_billing_age_seconds", "Time since this replica read the billing series.", since_s),
            (
                "penstock_rollup_age_seconds",
                "Time since the ledger was rolled up last, as far as this replica knows.",
                since_s + reading.rollup_age_s,
            ),
            (
                "penstock_billing_label_sets_left_out",
                "Teams with their models that are not exported because there are too many.",
                reading.left_out,
            ),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric((), value)
            yield gauge


def _amounts(
    prefix: str, what: str, rows: Sequence[tuple[tuple[str, ...], tuple[float, ...]]]
) -> Iterator[CounterMetricFamily]:
    tokens = CounterMetricFamily(f"{prefix}_tokens", f"Tokens {what}.", labels=(*_LABELS, "kind"))
    cost = CounterMetricFamily(f"{prefix}_cost_usd", f"US dollars {what}.", labels=_LABELS)
    for labels, amounts in rows:
        for kind, amount in zip(_KINDS, amounts, strict=False):
            tokens.add_metric((*labels, kind), amount)
        cost.add_metric(labels, amounts[-1])
    yield tokens
    yield cost


def _total(row: asyncpg.Record) -> _Total:
    labels = (row["organization"], row["team"], row["team_id"], row["model"])
    return _Total(labels, float(row["requests"]), _floats(row["charged"]), _floats(row["credited"]))


def _floats(amounts: Sequence[int]) -> tuple[float, ...]:
    """Return tokens as they are, and the cost, which is last, in US dollars: integers divide exactly rounded."""
    return (*(float(amount) for amount in amounts[:-1]), int(amounts[-1]) / PICO_USD_PER_USD)
